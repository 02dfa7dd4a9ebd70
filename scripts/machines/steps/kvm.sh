# The engine qemu-kvm, wherever there is a /dev/kvm: all that a capsule can be asked for.
[ -e /dev/kvm ] || { echo 'no /dev/kvm here'; exit 1; }
w() { node apps/cli/bin/wrenn.mjs "$@"; }
saw() { echo "@saw $*"; }
node apps/cli/bin/wrenn.mjs up --engine qemu-kvm --json >/tmp/kvm.json 2>/tmp/kvm.log &
until grep -q ready /tmp/kvm.json; do kill -0 $! || { cat /tmp/kvm.log; tail -40 /var/lib/wrenn/logs/host-agent.log; exit 1; }; done
trap 'tail -20 /var/lib/wrenn/logs/host-agent.log; w down --stop-capsules' EXIT
id=$(w capsule create --name kvm)
saw "create: $(w capsule info "$id" --json | tr -d '\n' | cut -c1-300)"
saw "exec: $(w capsule exec "$id" -- uname -a)"
w capsule exec "$id" -- sh -c 'echo kept >/dev/shm/mark'
w capsule pause "$id"
saw pause
w capsule resume "$id"
[ "$(w capsule exec "$id" -- cat /dev/shm/mark)" = kept ]
saw resume
w capsule checkpoint create "$id" before
w capsule exec "$id" -- sh -c 'echo other >/dev/shm/mark'
w capsule rollback "$id" before
[ "$(w capsule exec "$id" -- cat /dev/shm/mark)" = kept ]
saw rollback
w capsule fork "$id" --count 2
w capsule ls
for fork in $(w capsule ls --json | node -e 'for (const { id } of JSON.parse(require("fs").readFileSync(0))) console.log(id)'); do
  [ "$(w capsule exec "$fork" -- cat /dev/shm/mark)" = kept ]
done
saw fork
