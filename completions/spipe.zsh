#compdef spipe-enc spipe-dec spipectl
# zsh completion for spipe-enc, spipe-dec and spipectl: `complete` knows what may come next

local line
local -a candidates
for line in ${(f)"$(@LIBDIR@/complete "${(@Q)words[1,CURRENT-1]}" "${(Q)words[CURRENT]}" 2>/dev/null)"}; do
	case $line in
	@file) _files ;;
	@directory) _files -/ ;;
	@command) _command_names -e ;;
	*) candidates+=("${${line//:/\\:}/$'\t'/:}") ;;
	esac
done
(( ! $#candidates )) || _describe spipe candidates
