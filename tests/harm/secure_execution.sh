# SPDX-License-Identifier: Apache-2.0
# sh secure_execution.sh LIBRARY PROGRAM FOLDER: in secure execution the library honours no variable,
# opens no file and prints nothing. As root, in a mount namespace of its own, which harm_test.cpp
# makes with unshare: /etc is a private folder there, with an ld.so.preload that names the library.
# Status 77: it can't be run here.
set -eu
library=$1 program=$2 folder=$3

skip() {
  echo "skipped: $1"
  exit 77
}

for tool in setpriv mount unshare; do
  command -v "$tool" >/dev/null || skip "no $tool"
done
# The other user must be able to reach all of this.
chmod 755 "$folder"
mkdir "$folder/etc" "$folder/logs"
chmod 777 "$folder/logs"
install -m 755 "$library" "$folder/libforksafe.so"
install -m 4755 "$program" "$folder/privileged"
install -m 755 "$program" "$folder/ordinary"
for file in ld.so.cache passwd group nsswitch.conf; do
  [ ! -f "/etc/$file" ] || cp "/etc/$file" "$folder/etc/"
done
mount --bind "$folder/etc" /etc || skip "mounts are refused"

# as_user COMMAND...: runs the command as an ordinary user, with the variables that an attacker would set.
as_user() {
  setpriv --reuid 65534 --regid 65534 --clear-groups \
    env FORKSAFE_LOG="$folder/logs/${1#./}.log" FORKSAFE_WAIT_MS=rubbish FORKSAFE_CHILD_THREADS=auto "$@" 2>&1
}

cd "$folder"
without=$(as_user ./privileged)
echo "without the library: $without"
[ "$without" = 'secure execution 1, user root' ] || skip 'a setuid program gets no privileges here'

echo "$folder/libforksafe.so" >"$folder/etc/ld.so.preload"
ordinary=$(as_user ./ordinary)
echo "with it, an ordinary program: $ordinary"
# Otherwise the silence of the setuid program proves nothing.
[ -s logs/ordinary.log ] || {
  echo "WRONG: an ordinary program has logged nothing"
  exit 1
}
case $ordinary in
  *rubbish*) ;;
  *)
    echo "WRONG: an ordinary program prints nothing about a variable that can't be read"
    exit 1
    ;;
esac

with=$(as_user ./privileged)
echo "with it, the setuid program: $with"
[ "$with" = "$without" ] || exit 1
[ "$(ls logs)" = ordinary.log ] || {
  echo "WRONG: files were made: $(ls logs)"
  exit 1
}
