# What kind of machine this is.
. /etc/os-release
echo "@fact machine $NAME $(cat /etc/debian_version)"
echo "@fact node $(node --version)"
echo "@fact npm $(npm --version)"
qemu=$(apt-cache policy qemu-system-x86 2>/dev/null | sed -n 's/ *Candidate: //p')
echo "@fact qemu ${qemu:-?}"
echo "@fact kernel $(uname -r)"
echo "@fact cgroup $(stat -fc %T /sys/fs/cgroup | sed 's/cgroup2fs/2/;s/tmpfs/1/')"
ls -l /dev/kvm || echo "no /dev/kvm"
