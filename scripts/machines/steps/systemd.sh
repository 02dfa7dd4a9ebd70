# The platform as a systemd service: capsules live through its restarts, its death and its removal, under limits that hold.
w() { node apps/cli/bin/wrenn.mjs "$@"; }
alive() { # what is in memory and nowhere else
  [ "$(w capsule exec "$id" -- cat /dev/shm/mark)" = kept ] || { echo "the capsule is not what it was after: $1"; exit 1; }
  echo "@saw the capsule lives on after: $1"
}

w install --systemd
systemctl start wrenn
systemctl is-active wrenn
systemctl status wrenn --no-pager | head -5
id=$(w capsule create --name survivor)
w capsule exec "$id" -- sh -c 'echo kept >/dev/shm/mark'

pid=$(pgrep -f qemu-system | head -1)
cat "/proc/$pid/cgroup"
if grep -q 'wrenn\.service' "/proc/$pid/cgroup"; then echo "a guest is in the unit's group"; exit 1; fi
group=/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$pid/cgroup")
if [ -e "$group/memory.max" ]; then
  for limit in memory.max memory.swap.max memory.oom.group cpu.max pids.max; do echo "@saw $limit $(cat "$group/$limit")"; done
  [ "$(cat "$group/memory.max")" != max ] && [ "$(cat "$group/pids.max")" != max ]
fi

systemctl restart wrenn
alive 'systemctl restart'
systemctl daemon-reload
[ ! -e "$group/memory.max" ] || [ "$(cat "$group/memory.max")" != max ]
alive 'systemctl daemon-reload'
main=$(systemctl show --property=MainPID --value wrenn)
systemctl kill --signal=KILL --kill-whom=main wrenn
until [ "$(systemctl show --property=MainPID --value wrenn)" != "$main" ] && systemctl is-active --quiet wrenn; do sleep 1; done
alive 'the death of the platform'
[ "$pid" = "$(pgrep -f qemu-system | grep -x "$pid")" ]
w uninstall --systemd
[ -d "/proc/$pid" ]
echo '@saw the engine runs on after: uninstall'
node apps/cli/bin/wrenn.mjs up --json >/tmp/up.json 2>/tmp/up.log &
until grep -q ready /tmp/up.json; do kill -0 $! || { cat /tmp/up.log; exit 1; }; done
alive 'uninstall and a start by hand'
w down --stop-capsules
