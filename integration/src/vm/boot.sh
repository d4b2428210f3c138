#!/bin/sh
# The machine's first process, on its real root: makes it a node, and runs the job there (run.sh).
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

mkdir -p /dev/pts /dev/shm /dev/mqueue /dev/virtio-ports
mount -t devpts -o mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t mqueue mqueue /dev/mqueue
mount -t tmpfs -o mode=755 tmpfs /run
mount -t securityfs securityfs /sys/kernel/security
mount -t bpf bpf /sys/fs/bpf
# As systemd mounts it.
mount -t cgroup2 -o nsdelegate,memory_recursiveprot cgroup2 /sys/fs/cgroup

for port in /sys/class/virtio-ports/*; do
    ln -s "/dev/${port##*/}" "/dev/virtio-ports/$(cat "$port/name")"
done
exec 3>/dev/virtio-ports/status
echo up >&3

hostname -F /etc/hostname
ip link set lo up
# A way out that leads nowhere: a node has a default route.
modprobe dummy numdummies=0
ip link add uplink type dummy
ip address add 192.0.2.2/24 dev uplink
ip link set uplink up
ip route add default via 192.0.2.1
# A bridge's packets reach nftables only by the first. The kernel loads the others when netlink asks it for them, one by one, which
# takes seconds in an emulated machine.
modprobe -a br_netfilter veth nf_tables nft_chain_nat nft_nat nft_fib_inet nft_masq nft_ct nft_meta_bridge

# /dev/vdc is the first of the job's disks: what the node keeps, temporary files among it, so that they outlive a power cut.
disk=c
for point in $(cat /job/disks); do
    mkdir -p "$point"
    # A power cut may tear ext4's superblock, which is two sectors and not in the journal. As at a node's boot, it is had from a copy then.
    mount "/dev/vd$disk" "$point" ||
        { e2fsck -y "/dev/vd$disk"; mount "/dev/vd$disk" "$point"; } ||
        echo "no disk on $point"
    disk=$(echo "$disk" | tr c-y d-z)
done
mkdir -p -m 1777 /disk/tmp
mkdir -p -m 700 /disk/podwright
mount --bind /disk/tmp /tmp
mount --bind /disk/podwright /var/lib/podwright

while read -r tag access path; do
    mkdir -p "$path"
    mount -t 9p -o "trans=virtio,version=9p2000.L,msize=512000,cache=loose,$access" "$tag" "$path" || echo "no share on $path"
done < /job/shares

if [ -e /job/selinux.sh ]; then
    . /job/selinux.sh
fi
# systemd takes over as the first process, and runs the job as a unit.
if [ -e /job/systemd.sh ]; then
    . /job/systemd.sh
fi
. /job/run
