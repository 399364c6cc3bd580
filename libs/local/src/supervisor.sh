# Runs a server and ends it when whoever started this script is gone.
#
#   sh -c SCRIPT supervisor SIGNAL LOG FOLDER COMMAND...
#
# The starter holds the other end of standard input. When it closes that, or is killed in whatever way, `read` returns and
# the server gets SIGNAL. No process number is polled, so none can be mistaken. FOLDER, unless empty, is removed at the end.
# On standard output: "started PID", then "exited CODE".
signal=$1
log=$2
folder=$3
shift 3
exec 3<&0
"$@" </dev/null 3<&- >>"$log" 2>&1 &
server=$!
trap '' PIPE
(
    read -r _ <&3
    kill -s "$signal" "$server" 2>/dev/null
) &
reader=$!
echo "started $server"
wait "$server"
code=$?
# From here on the number of the server may belong to somebody else: nobody signals it any more.
kill "$reader" 2>/dev/null
echo "exited $code" 2>/dev/null
read -r _ <&3
if [ -n "$folder" ]; then rm -rf "$folder"; fi
