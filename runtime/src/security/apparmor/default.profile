# The profile of containers that ask for AppArmor's RuntimeDefault, or for nothing.
profile @NAME@ flags=(attach_disconnected,mediate_deleted) {
  # Files, sockets and capabilities are bound by the container's namespaces, users and capability sets.
  file,
  network,
  unix,
  capability,
  umount,

  # Processes of a pod signal and trace each other; in a pod that shares its PID namespace some may run under an earlier
  # version of this profile.
  signal (send) peer="@FAMILY@*",
  ptrace (trace, tracedby, read) peer="@FAMILY@*",

  # pause signals and enters containers, and the daemon's host may watch them. None of them has to be unconfined: an operator
  # or a distribution may give them any profile, also after the container was started, and AppArmor 4 counts one with
  # flags=(unconfined) as another peer. Whoever is confined needs its own profile's leave as well.
  signal (receive),
  ptrace (readby),

  # No mounts, and no write to what the whole machine shares.
  deny mount,
  deny /proc/{kcore,kmem,mem,keys,sysrq-trigger,timer_list} rwklx,
  deny /proc/* w,
  deny /proc/{acpi,asound,bus,fs,irq,scsi}/** wklx,
  deny /proc/sys/{abi,crypto,debug,dev,user,vm}/** wklx,
  deny /proc/sys/fs/{binfmt_misc,epoll,inotify,quota}/** wklx,
  deny /proc/sys/fs/* wklx,
  deny /proc/sys/kernel/{core*,hotplug,kexec*,modprobe,modules_disabled,panic*,poweroff_cmd,printk*,sysrq,tainted} wklx,
  deny /sys/{block,bus,class,dev,devices,hypervisor,kernel,module,power}/** wklx,
  deny /sys/{firmware,devices/virtual/powercap,kernel/security}/** rwklx,
}
