# Runs inside the tree, last: makes it fit to be read-only, shared and empty of
# what belongs to one machine. Arguments: docs man locales keep=LOCALE…
docs= man= locales= keep=
for w; do
  case $w in
  docs) docs=1 ;;
  man) man=1 ;;
  locales) locales=1 ;;
  keep=*) keep="$keep ${w#keep=}" ;;
  esac
done

size() { du -sk --one-file-system / 2>/dev/null | cut -f1; }
before=$(size)

# Essential packages are unpacked before dpkg can leave their manuals out.
if [ "$docs" ]; then
  find /usr/share/doc -mindepth 1 ! -type d ! -name copyright -delete 2>/dev/null || :
  find /usr/share/doc -mindepth 1 -type d -empty -delete 2>/dev/null || :
  rm -rf /usr/share/info /usr/share/lintian /usr/share/linda /usr/share/doc-base
fi
[ -z "$man" ] || find /usr/share/man -mindepth 1 ! -type d -delete 2>/dev/null || :
if [ "$locales" ] && [ -d /usr/share/locale ]; then
  for l in /usr/share/locale/*; do
    name=${l##*/}
    case " $keep " in *" $name "*|*" ${name%%_*} "*) continue ;; esac
    [ "$name" = locale.alias ] || rm -rf "$l"
  done
fi

# What belongs to one machine. An empty machine-id is "not set yet" for systemd
# and lets it be mounted over; a missing one breaks a read-only /etc.
rm -f /etc/ssh/ssh_host_*key /etc/ssh/ssh_host_*key.pub
rm -f /etc/hostname /etc/resolv.conf /etc/adjtime
: > /etc/machine-id
if [ -d /var/lib/dbus ]; then
  ln -sf /etc/machine-id /var/lib/dbus/machine-id
fi
rm -f /var/lib/systemd/random-seed /var/lib/urandom/random-seed /var/lib/systemd/credential.secret
[ -s /etc/hosts ] || printf '127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n' > /etc/hosts
ln -sf ../proc/self/mounts /etc/mtab

# Every machine makes its own host key when ssh starts, in the writable /etc, and
# anew after each boot. One key will do: an RSA key costs old machines seconds.
init=$(readlink -f /sbin/init || :)
if [ -e /usr/sbin/sshd ] && [ -d /usr/lib/systemd/system ]; then
  mkdir -p /etc/systemd/system/ssh.service.d
  cat > /etc/systemd/system/ssh.service.d/host-keys.conf <<'UNIT'
# From slate: the image has no host keys, so one is made before sshd -t asks for it.
[Service]
ExecStartPre=
ExecStartPre=/bin/sh -c '[ -e /etc/ssh/ssh_host_ed25519_key ] || ssh-keygen -q -t ed25519 -N "" -f /etc/ssh/ssh_host_ed25519_key'
ExecStartPre=/usr/sbin/sshd -t
UNIT
fi
if [ -e /usr/sbin/sshd ] && [ "${init##*/}" != systemd ] && [ -f /etc/default/ssh ]; then
  cat >> /etc/default/ssh <<'SH'

# From slate: the image has no host keys.
[ -e /etc/ssh/ssh_host_ed25519_key ] || ssh-keygen -q -t ed25519 -N "" -f /etc/ssh/ssh_host_ed25519_key
SH
fi

# Makes sockets for ssh into virtual machines, and complains on the console of
# all others.
if [ -e /usr/lib/systemd/system-generators/systemd-ssh-generator ]; then
  mkdir -p /etc/systemd/system-generators
  ln -sf /dev/null /etc/systemd/system-generators/systemd-ssh-generator
fi

# Openrc remounts a root that fstab does not call read-only. The line for / is
# not given to systemd: it would act on it where the root is an overlay.
if [ -x /sbin/openrc ] && [ "${init##*/}" != systemd ]; then
  printf 'rootfs\t/\tauto\tro\t0 0\n' > /etc/fstab
else
  printf '# The root is mounted before the system starts.\n' > /etc/fstab
fi

# Init scripts: a login on the serial console where the kernel has one, no key
# that stops an unattended start, and no services that are not there.
if [ -f /etc/inittab ] && ! grep -q '^[^#].*ttyS0' /etc/inittab; then
  cat >> /etc/inittab <<'INIT'
S0:2345:respawn:/bin/sh -c 'grep -q "^ttyS0 " /proc/consoles && exec /sbin/agetty --keep-baud 115200 ttyS0 vt100; exec sleep infinity'
INIT
fi
if [ -f /etc/rc.conf ]; then
  sed -i 's/^#*rc_interactive=.*/rc_interactive="NO"/; s/^#*rc_logger=.*/rc_logger="YES"/' /etc/rc.conf
fi
[ ! -d /etc/runlevels ] || find /etc/runlevels -xtype l -delete

# The boot files are not used from the tree, except the kernel itself.
rm -f /boot/initrd.img* /boot/*.dpkg-bak /initrd.img /initrd.img.old /vmlinuz.old

# What packages left behind.
rm -rf /var/cache/apt/archives /var/cache/apt/*.bin /var/lib/apt/lists /var/cache/debconf/*-old /var/lib/dpkg/*-old
rm -rf /var/cache/ldconfig /var/cache/man /var/tmp/* /var/log/apt /var/log/dpkg.log /var/log/alternatives.log
rm -f /var/log/bootstrap.log /var/log/faillog /var/log/lastlog /root/.bash_history
find /var/log -type f -exec sh -c ': > "$1"' sh {} \;
rm -f /etc/passwd- /etc/group- /etc/shadow- /etc/gshadow- /etc/subuid- /etc/subgid-
rm -f /etc/.pwd.lock
# Whether apt downloaded as its own user depends on the building machine.
if [ -d /var/cache/apt ]; then
  mkdir -p /var/cache/apt/archives/partial /var/lib/apt/lists/partial
  chmod 0700 /var/cache/apt/archives/partial /var/lib/apt/lists/partial
  chown _apt:root /var/cache/apt/archives/partial /var/lib/apt/lists/partial 2>/dev/null || :
fi

# Tells systemd that /etc and /var belong to this /usr, so that it does not
# rebuild caches at each start. mmdebstrap sets all later times back to this one.
for d in /etc /var; do
  printf '# Written by slate at build time.\nTIMESTAMP_NSEC=%s000000000\n' "${SOURCE_DATE_EPOCH:-0}" > "$d/.updated"
done

after=$(size)
echo "slate-saved: $(((before - after) * 1024))"
