# SPDX-License-Identifier: Apache-2.0
# zsh -f zsh_complete.zsh LINE DUMP FOLDER...: starts a zsh that finds its functions in the folders
# first, types LINE and a tab, and prints the completed line and then each word that was offered, on a
# line of its own. DUMP is the file in which compinit stores what it has found.
#
# The inner zsh runs in a zpty, because completion needs a terminal. Its compadd is replaced by one
# that records the matches; see zshmodules(1), zsh/zpty, and compadd -O in zshcompwid(1).
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
  # A call that fills an array of the caller adds no matches.
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
# Not earlier: the zpty is a fork of this shell and would run this too.
trap 'rm -rf $result' EXIT
zpty -w inner "source $result/setup"
zpty -r -m inner chatter '*READY>*' || exit 1
zpty -w -n inner "$line"$'\t'
while zpty -r inner chatter; do :; done
zpty -d inner
[[ -e $result/buffer ]] || exit 1
print -r -- "$(<$result/buffer)"
[[ ! -e $result/matches ]] || sort -u $result/matches
