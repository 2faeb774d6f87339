# SPDX-License-Identifier: Apache-2.0
# Bash completion for forksafe(1). If bash-completion is loaded, the words of COMMAND are completed by
# its own completion. This file works without bash-completion too.

# Sets COMPREPLY to the words of $1 that begin with $cur.
_forksafe_words() {
  local IFS=$' \t\n'
  COMPREPLY=($(compgen -W "$1" -- "$cur"))
}

# Offers the names of files; with -c, those of commands and folders.
_forksafe_names() {
  compopt -o filenames 2>/dev/null
  if [[ ${1-} == -c && $cur != */* ]]; then
    mapfile -t COMPREPLY < <(compgen -c -- "$cur"; compgen -d -- "$cur")
  else
    mapfile -t COMPREPLY < <(compgen -f -- "$cur")
  fi
}

# Offers the processes that this user may look at.
_forksafe_processes() {
  local folder pid
  COMPREPLY=()
  for folder in /proc/"$cur"*/; do
    pid=${folder#/proc/}
    pid=${pid%/}
    [[ $pid == +([0-9]) ]] || continue
    if ((EUID == 0)) || [[ -O $folder ]]; then COMPREPLY+=("$pid"); fi
  done
}

# Completes the command that begins at word $1, and its arguments.
_forksafe_command() {
  if declare -F _comp_command_offset >/dev/null; then
    _comp_command_offset "$1"
  elif declare -F _command_offset >/dev/null; then
    _command_offset "$1"
  elif ((COMP_CWORD == $1)); then
    _forksafe_names -c
  else
    _forksafe_names
  fi
}

_forksafe_value() {
  case $1 in
    --child-threads) _forksafe_words 'inherit auto' ;;
    --pool) _forksafe_words 'keep drop' ;;
    --core) _forksafe_names ;;
    --log)
      _forksafe_names
      [[ stderr == "$cur"* ]] && COMPREPLY+=(stderr)
      ;;
  esac
}

_forksafe() {
  local cur=${COMP_WORDS[COMP_CWORD]} word form= target= i=1
  local options='--child-threads --wait-ms --pool --log --watch --watch-abort --off --dry-run --force --print-library -h --help --version'
  COMPREPLY=()
  if ((COMP_CWORD > 1)); then
    case ${COMP_WORDS[1]} in
      list) options='--json --all -h --help' form=list i=2 ;;
      check) options='--json --timeout --no-proof -h --help' form=check i=2 ;;
      diagnose) options='--json --children --core -h --help' form=diagnose i=2 ;;
    esac
  fi

  # Walk over the words before the cursor. Readline splits --pool=keep into three words.
  while ((i < COMP_CWORD)); do
    word=${COMP_WORDS[i]}
    case $word in
      --)
        [[ $form == diagnose ]] || _forksafe_command $((i + 1))
        return
        ;;
      --child-threads | --wait-ms | --pool | --log | --watch | --timeout | --core)
        if [[ ${COMP_WORDS[i + 1]-} == = ]]; then
          ((++i))
          ((i == COMP_CWORD)) && cur=
        fi
        if ((i + 1 >= COMP_CWORD)); then
          _forksafe_value "$word"
          return
        fi
        # As in the command itself, -- is not a value.
        [[ ${COMP_WORDS[i + 1]} == -- ]] || ((++i))
        ;;
      -*) ;;
      *)
        if [[ -z $form ]]; then
          _forksafe_command "$i"
          return
        fi
        target=$word
        ;;
    esac
    ((++i))
  done

  if [[ $cur == -* ]]; then
    _forksafe_words "$options"
  elif [[ -n $form ]]; then
    [[ -n $target ]] || _forksafe_processes
  else
    local -a subcommands=()
    if ((COMP_CWORD == 1)); then
      _forksafe_words 'list check diagnose'
      subcommands=("${COMPREPLY[@]}")
    fi
    _forksafe_command "$i"
    COMPREPLY+=("${subcommands[@]}")
  fi
}

complete -F _forksafe forksafe
