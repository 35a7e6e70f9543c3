# Runs as the first process of new mount and process namespaces whose mounts
# nobody else sees. Arguments: ROOT [--bind|--bind-ro OUTSIDE INSIDE]… -- PROGRAM…
# All mount points were checked to be directories of the tree itself.
root=$1
shift
mount --bind "$root" "$root"
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys" || mount -t tmpfs -o ro,nosuid,nodev,noexec,mode=555 sys "$root/sys"
# Never the machine's own /dev: a build that removes its tree would remove that.
mount -t tmpfs -o nosuid,noexec,mode=755,size=1m dev "$root/dev"
for node in null:3 zero:5 full:7 random:8 urandom:9; do
  mknod -m 0666 "$root/dev/${node%:*}" c 1 "${node#*:}"
done
mknod -m 0666 "$root/dev/tty" c 5 0
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
mount -t tmpfs -o nosuid,nodev,mode=1777 shm "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s /proc/self/fd/0 "$root/dev/stdin"
ln -s /proc/self/fd/1 "$root/dev/stdout"
ln -s /proc/self/fd/2 "$root/dev/stderr"
mount -t tmpfs -o nosuid,nodev,mode=755 run "$root/run"
mkdir -p "$root/run/lock"
mount -t tmpfs -o nosuid,nodev,mode=1777 tmp "$root/tmp"
while [ "$1" != -- ]; do
  mount --bind "$2" "$root/$3"
  case $1 in
  --bind) mount -o remount,bind,nosuid,nodev "$root/$3" ;;
  *) mount -o remount,bind,ro,nosuid,nodev "$root/$3" ;;
  esac
  shift 3
done
shift
hostname slate-build 2>/dev/null || :
# This keeps mistakes in, not a root who wants to get out.
cd "$root"
exec chroot . "$@"
