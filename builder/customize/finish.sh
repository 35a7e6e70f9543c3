# Runs inside the tree, last: makes it fit to be read-only, shared and empty of
# what belongs to one machine. Arguments: docs man locales keep=LOCALE…
# development package-db own=PATH… (files of the recipe: they stay as they are).
docs= man= locales= keep= development= packagedb= own=
for w; do
  case $w in
  docs) docs=1 ;;
  man) man=1 ;;
  locales) locales=1 ;;
  keep=*) keep="$keep ${w#keep=}" ;;
  development) development=1 ;;
  package-db) packagedb=1 ;;
  own=*) own="$own
${w#own=}
" ;;
  esac
done
ours() { case $own in *"
$1
"*) return 0 ;; esac; return 1; }

mkdir -p /etc /var

# begin WHAT PLACE… and end say how much was removed in between.
total() { du -skcx $places 2>/dev/null | tail -n 1 | cut -f1; }
begin() { what=$1; shift; places=$*; before=$(total); }
end() {
  after=$(total)
  [ "${before:-0}" -le "${after:-0}" ] || echo "slate-saved: $what $(((before - ${after:-0}) * 1024))"
}

if [ "$docs" ]; then
  # Essential packages are unpacked before dpkg can leave their manuals out.
  begin documents /usr/share/doc /usr/share/info /usr/share/lintian /usr/share/linda /usr/share/doc-base /usr/share/gtk-doc
  find /usr/share/doc -mindepth 1 ! -type d ! -name copyright -exec rm -f {} + 2>/dev/null || :
  find /usr/share/doc -mindepth 1 -depth -type d -empty -exec rmdir {} + 2>/dev/null || :
  rm -rf /usr/share/info /usr/share/lintian /usr/share/linda /usr/share/doc-base /usr/share/gtk-doc
  end
fi
if [ "$man" ]; then
  begin manuals /usr/share/man
  find /usr/share/man -mindepth 1 ! -type d -exec rm -f {} + 2>/dev/null || :
  end
fi
if [ "$locales" ] && [ -d /usr/share/locale ]; then
  begin translations /usr/share/locale
  for l in /usr/share/locale/*; do
    name=${l##*/}
    case " $keep " in *" $name "*|*" ${name%%_*} "*) continue ;; esac
    [ "$name" = locale.alias ] || rm -rf "$l"
  done
  end
fi
if [ "$development" ]; then
  begin development /usr/include /usr/lib /usr/lib32 /usr/lib64 /usr/share/aclocal /usr/share/pkgconfig /usr/share/cmake /usr/share/gir-1.0
  # Python reads one of its headers when it runs.
  find /usr/include -mindepth 1 ! -type d ! -name pyconfig.h -exec rm -f {} + 2>/dev/null || :
  find /usr/include -mindepth 1 -depth -type d -empty -exec rmdir {} + 2>/dev/null || :
  for d in /usr/lib /usr/lib32 /usr/lib64; do
    [ -d "$d" ] && [ ! -L "$d" ] || continue
    find "$d" -xdev -type f \( -name '*.a' -o -name '*.la' \) -exec rm -f {} +
    find "$d" -xdev -type d \( -name pkgconfig -o -name cmake \) -prune -exec rm -rf {} +
  done
  rm -rf /usr/share/aclocal /usr/share/pkgconfig /usr/share/cmake /usr/share/gir-1.0
  end
fi

# Gentoo's kernel packages leave the kernel among its sources. It is wanted, they
# are not: modules that are to be built for it are built by Portage.
if [ -d /var/db/pkg ]; then
  for k in /lib/modules/*/vmlinuz; do
    if [ -L "$k" ] && [ -e "$k" ]; then
      cp -L "$k" "$k.slate"
      mv -f "$k.slate" "$k"
    fi
  done
  begin "kernel-sources" /usr/src
  for l in /lib/modules/*/build /lib/modules/*/source; do
    [ ! -L "$l" ] || rm -f "$l"
  done
  find /usr/src -mindepth 1 -maxdepth 1 -exec rm -rf {} + 2>/dev/null || :
  end
  begin caches /var/cache/distfiles /var/cache/binpkgs /var/cache/binhost /var/cache/edb /var/cache/eix /var/tmp /var/db/repos
  for d in /var/cache/distfiles /var/cache/binpkgs /var/cache/binhost /var/cache/edb /var/cache/eix /var/db/repos; do
    [ ! -d "$d" ] || find "$d" -mindepth 1 -maxdepth 1 -exec rm -rf {} +
  done
  # getuto makes a key pair to vouch for others' keys: a secret.
  rm -rf /etc/portage/gnupg /var/log/portage /var/log/emerge.log /var/log/emerge-fetch.log /var/lib/portage/news
  end
fi

# What belongs to one machine. An empty machine-id is "not set yet" for systemd
# and lets it be mounted over; a missing one breaks a read-only /etc.
rm -f /etc/ssh/ssh_host_*key /etc/ssh/ssh_host_*key.pub
for f in /etc/hostname /etc/resolv.conf /etc/adjtime /etc/conf.d/hostname; do ours "$f" || rm -f "$f"; done
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
if [ -e /usr/sbin/sshd ] && [ -e /usr/lib/systemd/system/ssh.service ]; then
  mkdir -p /etc/systemd/system/ssh.service.d
  cat > /etc/systemd/system/ssh.service.d/host-keys.conf <<'UNIT'
# From slate: the image has no host keys, so one is made before sshd -t asks for it.
[Service]
ExecStartPre=
ExecStartPre=/bin/sh -c '[ -e /etc/ssh/ssh_host_ed25519_key ] || ssh-keygen -q -t ed25519 -N "" -f /etc/ssh/ssh_host_ed25519_key'
ExecStartPre=/usr/sbin/sshd -t
UNIT
fi
if [ -e /usr/sbin/sshd ] && [ "${init##*/}" != systemd ] && [ -f /etc/default/ssh ] && ! grep -q ssh-keygen /etc/default/ssh; then
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
if ours /etc/fstab; then
  :
elif [ -x /sbin/openrc ] && [ "${init##*/}" != systemd ]; then
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
# What the controller has mounted below the root stays mounted to the end.
if [ -f /etc/conf.d/localmount ] && ! ours /etc/conf.d/localmount && ! grep -q '^no_umounts=' /etc/conf.d/localmount; then
  echo 'no_umounts="/var:/tmp:/root:/home:/mnt:/media:/user-data:/run/slate"' >> /etc/conf.d/localmount
fi
for l in /etc/runlevels/*/*; do
  [ -e "$l" ] || rm -f "$l"
done

# What packages left behind.
begin leftovers /var/cache /var/lib/apt /var/lib/dpkg /var/tmp /var/log /boot
rm -f /boot/initrd.img* /boot/initramfs-* /boot/*.dpkg-bak /initrd.img /initrd.img.old /vmlinuz.old
rm -rf /var/cache/apt/archives /var/cache/apt/*.bin /var/lib/apt/lists /var/cache/debconf/*-old /var/lib/dpkg/*-old
rm -rf /var/cache/ldconfig /var/cache/man /var/tmp/* /var/log/apt /var/log/dpkg.log /var/log/alternatives.log
rm -f /var/log/bootstrap.log /var/log/faillog /var/log/lastlog /root/.bash_history /root/.ash_history
[ ! -d /var/log ] || find /var/log -type f -exec sh -c ': > "$1"' sh {} \;
rm -f /etc/passwd- /etc/group- /etc/shadow- /etc/gshadow- /etc/subuid- /etc/subgid-
rm -f /etc/.pwd.lock
end
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

if [ "$packagedb" ]; then
  begin package-records /var/db/pkg /var/lib/dpkg /var/lib/apt /var/lib/portage
  rm -rf /var/db/pkg /var/lib/dpkg /var/lib/apt /var/lib/portage
  end
fi
