# Runs a program and ends it when the test that started this script is gone.
#
#   sh -c SCRIPT child FOLDER COMMAND...
#
# The test holds the other end of standard input. When it closes that, or is killed, `read` returns and the program gets
# SIGTERM, and SIGKILL where it does not end. FOLDER, unless empty, is removed at the end.
# On standard output: "started PID", then "exited CODE". The program's own output goes to standard error.
folder=$1
shift
exec 3<&0
trap '' PIPE
"$@" </dev/null 3<&- >&2 &
program=$!
(
    read -r _ <&3
    kill -s TERM "$program" 2>/dev/null
    tries=0
    while [ "$tries" -lt 300 ] && kill -0 "$program" 2>/dev/null; do
        sleep 0.1
        tries=$((tries + 1))
    done
    kill -s KILL "$program" 2>/dev/null
) &
reader=$!
echo "started $program"
wait "$program"
code=$?
# From here on the number of the program may belong to somebody else: nobody signals it any more.
kill "$reader" 2>/dev/null
echo "exited $code" 2>/dev/null
read -r _ <&3
if [ -n "$folder" ]; then rm -rf "$folder"; fi
