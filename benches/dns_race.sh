#!/usr/bin/env bash
# The race of name servers: the example `dns`, Knot and NSD serve the same small zone, one thread each.
#
#   benches/dns_race.sh [ROUNDS [SECONDS]]     defaults: 3 rounds of 2 seconds for each server and load
#
# Needs cargo, knotd, nsd, dnsperf, dig, taskset and chrt, and a Linux that keeps /proc/*/schedstat.
#
# Three loads, each with 128 queries in flight: `many` is dnsperf with 64 clients, `each` is dnsperf with
# a client for every query, and `one` is our own client on one socket. Each is run twice. `full`: load
# and server share a processor, and both are in the class SCHED_BATCH, so that one does not interrupt the
# other: the server finds its queue full whenever it runs. `apart`: the load has other processors, and
# since a client spends more on a query than a server does, the server finds a few queries at a time.
#
# The servers take turns within each round. For each it prints the median over the rounds of nanoseconds
# of the server's CPU time per query, and of queries per second; then the median of each round's ratio to
# the better of the other two.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-3} seconds=${2:-2}
for number in "$rounds" "$seconds"; do
    [[ $number =~ ^[1-9][0-9]*$ ]] || { echo "$number: not a number of rounds or seconds" >&2; exit 2; }
done

for program in knotd nsd dnsperf dig taskset chrt; do
    PATH=$PATH:/usr/sbin command -v "$program" >/dev/null || { echo "$program is missing" >&2; exit 1; }
done
PATH=$PATH:/usr/sbin

echo 'Do all three answer the same?'
cargo test --quiet -p rejoinder-protocols --test programs -- --ignored dig_prints_the_same >/dev/null
cargo build --quiet --release -p rejoinder-protocols --example dns
target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
our_client=$(cargo bench --no-run -p rejoinder-benches --bench dns_load --message-format json 2>/dev/null |
    sed -n 's/.*"name":"dns_load".*"executable":"\([^"]*\)".*/\1/p' | tail -1)

processors=$(nproc) places=full
[ "$processors" -gt 1 ] && places='full apart'
batch_on() { exec taskset -c "$1" chrt --batch 0 "${@:2}"; }

work=$(mktemp -d)
declare -A pid port=([ours]=5390 [knot]=5391 [nsd]=5392)
stop() {
    for server in "${!pid[@]}"; do kill "${pid[$server]}" 2>/dev/null || true; done
    wait
    rm -rf "$work"
}
trap stop EXIT
for server in knot nsd; do
    mkdir "$work/$server"
    cp crates/protocols/src/dns/example.zone "$work/$server/example.org.zone"
    sed "s|@DIR@|$work/$server|; s|@PORT@|${port[$server]}|" "benches/dns_race/$server.conf" >"$work/$server/config"
done
batch_on 0 "$target/release/examples/dns" "127.0.0.1:${port[ours]}" --quiet & pid[ours]=$!
batch_on 0 knotd -c "$work/knot/config" 2>/dev/null & pid[knot]=$!
batch_on 0 nsd -d -c "$work/nsd/config" 2>/dev/null & pid[nsd]=$!
for server in ours knot nsd; do
    for _ in {1..50}; do
        answer=$(dig @127.0.0.1 -p "${port[$server]}" +tries=1 +timeout=1 +short ns1.example.org 2>/dev/null) || true
        [ "$answer" = 192.0.2.53 ] && continue 2
        sleep 0.1
    done
    echo "$server does not answer" >&2
    exit 1
done

# Nanoseconds on a processor so far, of a process with its threads and descendants.
cpu() {
    local child sum
    sum=$(cat /proc/"$1"/task/*/schedstat | awk '{ sum += $1 } END { printf "%.0f", sum }')
    for child in $(cat /proc/"$1"/task/*/children); do
        sum=$((sum + $(cpu "$child")))
    done
    echo "$sum"
}

# Runs a load against a port, and prints the number of queries answered and the seconds that took.
load() {
    local kind=$1 cpus=$2 clients=64
    [ "$kind" = each ] && clients=128
    if [ "$kind" = one ]; then
        (batch_on "$cpus" "$our_client" "127.0.0.1:$3" "$seconds" 128)
    else
        (batch_on "$cpus" dnsperf -s 127.0.0.1 -p "$3" -d benches/dns_race/queries -c "$clients" -q 128 -l "$seconds") |
            awk '/Queries completed/ { queries = $3 } /Run time/ { time = $4 } /Queries lost/ { lost = $3 }
                 END { if (lost > queries / 1000) exit 1; print queries, time }'
    fi
}

for ((round = 1; round <= rounds; round++)); do
    for place in $places; do
        cpus=0
        [ "$place" = apart ] && cpus=1-$((processors - 1))
        for kind in many each one; do
            for server in ours knot nsd; do
                before=$(cpu "${pid[$server]}")
                result=$(load "$kind" "$cpus" "${port[$server]}")
                after=$(cpu "${pid[$server]}")
                echo "$round $place $kind $server $result $((after - before))" | tee -a "$work/results" >&2
            done
        done
    done
done

# Each line: round, place, load, server, queries, seconds, nanoseconds.
awk '
    function median(values, count,    i, j, swap) {
        for (i = 1; i <= count; i++)
            for (j = i + 1; j <= count; j++)
                if (values[j] < values[i]) { swap = values[i]; values[i] = values[j]; values[j] = swap }
        return (values[int((count + 1) / 2)] + values[int(count / 2) + 1]) / 2
    }
    function over_rounds(table, key,    round, values) {
        for (round = 1; round <= rounds; round++) values[round] = table[round, key]
        return median(values, rounds)
    }
    {
        rounds = $1
        kind = $2 " " $3
        if (!(kind in seen)) { seen[kind]; kinds[++number] = kind }
        cost[$1, kind, $4] = $7 / $5
        rate[$1, kind, $4] = $5 / $6
    }
    END {
        split("ours knot nsd", servers, " ")
        printf "\n%-5s %-5s %-6s %13s %13s\n", "place", "load", "server", "ns CPU/query", "queries/s"
        for (k = 1; k <= number; k++) {
            kind = kinds[k]
            for (s = 1; s <= 3; s++) {
                split(kind, words, " ")
                printf "%-5s %-5s %-6s %13.0f %13.0f\n", words[1], words[2], servers[s],
                    over_rounds(cost, kind SUBSEP servers[s]), over_rounds(rate, kind SUBSEP servers[s])
            }
            for (round = 1; round <= rounds; round++) {
                knot = cost[round, kind, "knot"]; nsd = cost[round, kind, "nsd"]
                costs[round] = cost[round, kind, "ours"] / (knot < nsd ? knot : nsd)
                knot = rate[round, kind, "knot"]; nsd = rate[round, kind, "nsd"]
                rates[round] = rate[round, kind, "ours"] / (knot > nsd ? knot : nsd)
            }
            printf "%s: ours to the better of the others: CPU per query %.2f, queries per second %.2f\n\n",
                kind, median(costs, rounds), median(rates, rounds)
        }
    }
' "$work/results"
