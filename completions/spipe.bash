# bash completion for spipe-enc, spipe-dec and spipectl: `complete` knows what may come next
# shellcheck shell=bash disable=SC2034,SC2154 # bash-completion's variables

_spipe() {
	local cur prev words cword line
	_init_completion -n =: || return
	while IFS= read -r line; do
		case $line in
		@file) _filedir ;;
		@directory) _filedir -d ;;
		@command) mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -c -- "$cur") ;;
		*)
			line=${line%%$'\t'*}
			[[ $line != "$cur"* ]] || COMPREPLY+=("$line")
			;;
		esac
	done < <(@LIBDIR@/complete "${words[@]:0:cword}" "$cur" 2>/dev/null)
	# readline takes what follows a "=" for a word of its own
	[[ $cur != -*=* ]] || COMPREPLY=("${COMPREPLY[@]#*=}")
}
complete -F _spipe spipe-enc spipe-dec spipectl
