#!/bin/bash
# The first process of a node: a kernel of its own, whose root directory is that of this machine.
# Words PM_... of the kernel's command line say which node it is to be; see nfs.py.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8
mount -t proc proc /proc
for word in $(</proc/cmdline); do
    [[ $word != PM_*=* ]] || declare "$word"
done
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/shm /run/{modules/lib,netns,rpcbind,sshd,disk}
mount -t tmpfs tmpfs /dev/shm
hostname "$PM_NAME"
ip link set lo up
ip address add "$PM_ADDRESS/24" dev eth0
ip link set eth0 up
ln -s /usr/lib/uml/modules /run/modules/lib/modules
load() { modprobe -d /run/modules "$1"; }

sed 's/^root:[^:]*/root:*/' /etc/shadow > /run/shadow # sshd refuses accounts that are locked
mount --bind /run/shadow /etc/shadow
sed 's|^\(root:.*:\).*|\1/bin/sh|' /etc/passwd > /run/passwd # a shell that reads no ~/.bashrc
mount --bind /run/passwd /etc/passwd
/usr/sbin/sshd -f /dev/null -o HostKey="$PM_KEYS/host" -o AuthorizedKeysFile="$PM_KEYS/login.pub" \
    -o StrictModes=no -o UsePAM=no -o UseDNS=no -o PidFile=none -o MaxStartups=100

load sunrpc
if [[ $PM_ROLE = server ]]; then
    # Its disk keeps, besides the files, what it must know of its clients after a crash.
    mount /dev/ubda /run/disk
    mkdir -p /run/disk/{state,shared}
    mount --bind /run/disk/state /var/lib/nfs
else
    mount -t tmpfs tmpfs /var/lib/nfs
fi
mkdir -p /var/lib/nfs/{sm,sm.bak,v4recovery,rpc_pipefs,nfsdcltrack,nfsdcld}
touch /var/lib/nfs/{etab,rmtab}
mount -t rpc_pipefs rpc_pipefs /var/lib/nfs/rpc_pipefs
grep -v 6 /etc/netconfig > /run/netconfig # these kernels have no IPv6
mount --bind /run/netconfig /etc/netconfig
rpcbind -w
rpc.statd --no-notify
if [[ $PM_ROLE = server ]]; then
    load nfsd
    mount -t nfsd nfsd /proc/fs/nfsd
    nfsdcld
    exportfs -i -o rw,no_root_squash,insecure,sync,no_subtree_check,fsid=0 '*:/run/disk/shared'
    rpc.mountd
    rpc.nfsd --grace-time "$PM_LEASE" --lease-time "$PM_LEASE" 8
else
    load nfsv3
    load nfsv4
    # Over the network only: a directory of this machine that has the name is hidden.
    mount -t nfs -o "$PM_OPTIONS" "$PM_SERVER:/" "$PM_SHARED"
fi
sm-notify

# The node's serial line goes to the tests: when they are gone, so is the node.
exec <> /dev/ttyS0
[[ $PM_ROLE = server ]] || mountpoint -q "$PM_SHARED" && echo ready >&0
read -r
echo o > /proc/sysrq-trigger
sleep 60
