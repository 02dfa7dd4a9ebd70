# `wrenn up` by hand in a login session: its end takes the platform along, but no capsule.
w() { node apps/cli/bin/wrenn.mjs "$@"; }
start() { # name of the session's scope
  systemd-run --quiet --scope --slice=user-0.slice --unit="$1" node apps/cli/bin/wrenn.mjs up --json >"/tmp/$1.json" 2>"/tmp/$1.log" &
  until grep -q ready "/tmp/$1.json"; do kill -0 $! || { cat "/tmp/$1.log"; exit 1; }; done
}

start session-first
id=$(w capsule create --name survivor)
w capsule exec "$id" -- sh -c 'echo kept >/dev/shm/mark'
systemctl stop session-first.scope
[ -z "$(cat /sys/fs/cgroup/user.slice/user-0.slice/session-first.scope/cgroup.procs 2>/dev/null)" ]
pgrep -f qemu-system >/dev/null
start session-second
[ "$(w capsule exec "$id" -- cat /dev/shm/mark)" = kept ]
echo '@saw the capsule lives on after the end of the session'
w down --stop-capsules
