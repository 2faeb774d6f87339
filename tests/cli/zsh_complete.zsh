# SPDX-License-Identifier: Apache-2.0
# zsh -f zsh_complete.zsh LINE DUMP FOLDER...: types LINE and a tab at a prompt of a zsh whose
# functions in the folders come first, and prints the line that comes of it, then the words that
# were offered, one a line. DUMP is a file in which compinit keeps what it has found.
#
# The inner zsh runs in a zpty, as completion needs a terminal. Its compadd is replaced by one that
# notes what matches; see zshmodules(1), zsh/zpty, and compadd -O in zshcompwid(1).
zmodload zsh/zpty || exit 1
local line=$1 result=$(mktemp -d)

cat >$result/setup <<'END'
fpath=(${(s.:.)FOLDERS} $fpath)
autoload -Uz compinit
compinit -u -d $DUMP
setopt no_auto_list no_beep
zstyle ':completion:*' completer _complete
compadd() {
  local -a matches
  # A call that fills an array of the caller's adds nothing.
  if [[ ${@[1,(i)(-|--)]} != *-(O|A|D)\ * ]]; then
    builtin compadd -O matches "$@"
    (( $#matches )) && print -rl -- ${(Q)matches} >>$RESULT/matches
  fi
  builtin compadd "$@"
}
finish() {
  zle complete-word
  print -rn -- $BUFFER >$RESULT/buffer
  exit
}
zle -N finish
bindkey '^I' finish
PS1='READY''>'
END

export RESULT=$result DUMP=$2 FOLDERS=${(j.:.)@[3,-1]}
zpty inner zsh -f -i
# Not before: the zpty is a fork of this shell, and would run it too.
trap 'rm -rf $result' EXIT
zpty -w inner "source $result/setup"
zpty -r -m inner chatter '*READY>*' || exit 1
zpty -w -n inner "$line"$'\t'
while zpty -r inner chatter; do :; done
zpty -d inner
[[ -e $result/buffer ]] || exit 1
print -r -- "$(<$result/buffer)"
[[ ! -e $result/matches ]] || sort -u $result/matches
