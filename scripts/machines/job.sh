# Runs in the machine: the steps of the plan, one after the other; what it says with @ is read from its console.
luggage=/mnt/luggage
rm -rf /root/wrenn.new && mkdir -p /root/wrenn /root/wrenn.new
tar -xf $luggage/checkout.tar -C /root/wrenn.new
# What earlier runs installed is kept; the sources are this run's.
for installed in node_modules apps/guest-agent/runtime/node_modules; do
  [ ! -d "/root/wrenn/$installed" ] || mv "/root/wrenn/$installed" "/root/wrenn.new/$installed"
done
rm -rf /root/wrenn && mv /root/wrenn.new /root/wrenn
mkdir -p /var/lib/wrenn/pool
mountpoint -q /var/lib/wrenn/pool || mount LABEL=pool /var/lib/wrenn/pool
export STEPS=$luggage/steps
# A machine without a network fails at everything, which says nothing about the checkout.
curl -sS -o /dev/null --retry 5 --retry-connrefused --max-time 120 https://registry.npmjs.org/zod || { ip address; echo '@fact network none'; }
while read -r step limit; do
  cd /root/wrenn || exit 1
  echo "@begin $step"
  start=$(date +%s)
  timeout --kill-after=30 "$limit" bash -eu -o pipefail "$STEPS/$step.sh" </dev/null
  echo "@step $step $? $(($(date +%s) - start))"
done <$luggage/plan
