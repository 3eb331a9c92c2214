#!/usr/bin/env bash
# The race of name servers: examples/dns.rs, Knot and NSD serve the same small zone, one thread each.
#
#   benches/dns_race.sh [ROUNDS [SECONDS]]     defaults: 5 rounds of 5 seconds for each server and load
#
# Needs cargo, knotd, nsd, dnsperf and dig, and a Linux that keeps /proc/*/schedstat. Two kinds of load:
# `many` is dnsperf with 64 clients, `one` our own client with 128 requests in flight on one socket. The
# servers take turns within each round. For each it prints the median over the rounds of queries per
# second, and of nanoseconds of the server's CPU time per query; then the ratios to the better of the
# other two.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-5} seconds=${2:-5}

for program in knotd nsd dnsperf dig; do
    PATH=$PATH:/usr/sbin command -v "$program" >/dev/null || { echo "$program is missing" >&2; exit 1; }
done
PATH=$PATH:/usr/sbin

echo 'Do all three answer the same?'
cargo build --quiet --examples
cargo test --quiet --test protocols -- --ignored dig_prints_the_same >/dev/null
cargo build --quiet --release --example dns
target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
load=$(cargo bench --no-run --bench dns_load --message-format json 2>/dev/null |
    sed -n 's/.*"name":"dns_load".*"executable":"\([^"]*\)".*/\1/p' | tail -1)

# The server on one processor, the load on the others.
server_on=(env) load_on=(env) processors=$(nproc)
if command -v taskset >/dev/null && [ "$processors" -gt 1 ]; then
    server_on=(taskset -c 0) load_on=(taskset -c "1-$((processors - 1))")
fi

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
    cp examples/dns/example.zone "$work/$server/example.org.zone"
    sed "s|@DIR@|$work/$server|; s|@PORT@|${port[$server]}|" "benches/dns_race/$server.conf" >"$work/$server/config"
done
"${server_on[@]}" "$target/release/examples/dns" "127.0.0.1:${port[ours]}" --quiet & pid[ours]=$!
"${server_on[@]}" knotd -c "$work/knot/config" 2>/dev/null & pid[knot]=$!
"${server_on[@]}" nsd -d -c "$work/nsd/config" 2>/dev/null & pid[nsd]=$!
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

# The number of queries answered, and the seconds that took.
many() {
    "${load_on[@]}" dnsperf -s 127.0.0.1 -p "$1" -d benches/dns_race/queries -c 64 -q 128 -l "$seconds" |
        awk '/Queries completed/ { queries = $3 } /Run time/ { time = $4 } /Queries lost/ { lost = $3 }
             END { if (lost > queries / 1000) exit 1; print queries, time }'
}
one() {
    "${load_on[@]}" "$load" "127.0.0.1:$1" "$seconds" 128
}

for ((round = 1; round <= rounds; round++)); do
    for kind in many one; do
        for server in ours knot nsd; do
            before=$(cpu "${pid[$server]}")
            result=$("$kind" "${port[$server]}")
            after=$(cpu "${pid[$server]}")
            echo "$kind $server $result $((after - before))" | tee -a "$work/results" >&2
        done
    done
done

# Each line: kind, server, queries, seconds, nanoseconds.
median() { sort -g | awk '{ value[NR] = $1 } END { print (value[int((NR + 1) / 2)] + value[int(NR / 2) + 1]) / 2 }'; }
column() { awk -v kind="$1" -v server="$2" "\$1 == kind && \$2 == server { print $3 }" "$work/results" | median; }
printf '\n%-6s %-6s %14s %14s\n' load server queries/s 'ns CPU/query'
for kind in many one; do
    declare -A rate cost
    for server in ours knot nsd; do
        rate[$server]=$(column "$kind" "$server" '$3 / $4')
        cost[$server]=$(column "$kind" "$server" '$5 / $3')
        printf '%-6s %-6s %14.0f %14.0f\n' "$kind" "$server" "${rate[$server]}" "${cost[$server]}"
    done
    awk -v kind="$kind" -v ours="${cost[ours]}" -v knot="${cost[knot]}" -v nsd="${cost[nsd]}" \
        -v rate="${rate[ours]}" -v rate_knot="${rate[knot]}" -v rate_nsd="${rate[nsd]}" 'BEGIN {
            best = knot < nsd ? knot : nsd
            fastest = rate_knot > rate_nsd ? rate_knot : rate_nsd
            printf "%-6s ours to the better of the others: CPU per query %.2f, queries per second %.2f\n",
                kind, ours / best, rate / fastest
        }'
done
