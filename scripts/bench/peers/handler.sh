#!/bin/sh
# The tutorial's conversation as a shell script on standard input and output: what socat, ncat and
# xinetd start for each client.  Usage: handler.sh LOG RECORD
syslog=$1 record=$2
client=${SOCAT_PEERADDR:-${NCAT_REMOTE_ADDR:-$REMOTE_HOST}}

note() {
    echo "$(date '+%Y-%m-%d %H:%M:%S') [$$,$client] $1" >>"$record"
}

note "Client connection from $client"
while read -r command argument; do
    said="$command${argument:+ $argument}"
    note "Cmd received from $client : $said"
    case $command in
    ping) echo pong ;;
    exit) ;;
    lastlog) printf 'Begin lastlog\n%s\nEnd lastlog\n' "$(tail -n 10 "$syslog")" ;;
    comphash)
        if output=$(sha1sum -- "$argument" 2>&1); then
            echo "File hash is : ${output%% *}"
        else
            echo "An error occured : $output"
        fi
        ;;
    *) echo "Command not found." ;;
    esac
    note "Cmd completed for $client : $said"
    [ "$command" = exit ] && break
done
note "Lost client connection. Reason: Connection was closed cleanly."
