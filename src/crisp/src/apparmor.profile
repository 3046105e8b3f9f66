# RuntimeDefault: everything that files, capabilities and namespaces allow anyway, but for the kernel's own controls, in case that a
# container gets past their read-only mounts. Capabilities are dropped by the runtime, not here.
profile crisp-default flags=(attach_disconnected,mediate_deleted) {
  network,
  capability,
  file,
  umount,
  unix,

  # the host may signal it, and containers of this profile each other
  signal (receive) peer=unconfined,
  signal (send, receive) peer=crisp-default,
  ptrace (trace, read, tracedby, readby) peer=crisp-default,
  ptrace (tracedby, readby) peer=unconfined,

  deny mount,

  deny /proc/* w,
  deny /proc/{acpi,asound,bus,driver,fs,irq,scsi,tty}/** w,
  deny /proc/{kcore,kmem,mem,sysrq-trigger} rwklx,
  deny /proc/sys/{abi,crypto,debug,dev,fs,net,sunrpc,user,vm}/** w,
  # the IPC namespace's own limits (msg*, sem*, shm*) stay writable where the mount allows it
  deny /proc/sys/kernel/{[^ms]*,m[^s]*,s[^eh]*}{,/**} w,

  deny /sys/{block,bus,class,dev,devices,hypervisor,module,power}/** wklx,
  deny /sys/fs/[^c]** wklx,
  deny /sys/kernel/[^s]** wklx,
  deny /sys/{firmware,kernel/security}/** rwklx,
}
