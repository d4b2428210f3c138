#!/bin/busybox sh
# The kernel's first program, in the initramfs: finds the real root and goes on there.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
while read -r module; do
    insmod "/modules/$module.ko" || echo "no module $module"
done < /modules/order

# The image stays as it is; what is written is in memory.
mkdir /image /memory /node
mount -t ext4 -o ro /dev/vda /image
mount -t tmpfs -o mode=755 tmpfs /memory
mkdir /memory/upper /memory/work
mount -t overlay -o lowerdir=/image,upperdir=/memory/upper,workdir=/memory/work overlay /node
mount -t ext4 -o ro /dev/vdb /node/lib/modules
mount -t 9p -o trans=virtio,version=9p2000.L,ro job /node/job

for filesystem in dev proc sys; do
    mount --move /$filesystem /node/$filesystem
done
exec switch_root /node /bin/sh /job/boot
