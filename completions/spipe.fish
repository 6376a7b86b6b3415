# fish completion for spipe-enc, spipe-dec and spipectl: `complete` knows what may come next

function __spipe_complete
	set -l current (commandline --current-token)
	for line in (@LIBDIR@/complete (commandline --tokenize --cut-at-cursor --current-process) "$current" 2>/dev/null)
		switch $line
			case @file
				__fish_complete_path "$current"
			case @directory
				__fish_complete_directories "$current"
			case @command
				__fish_complete_command
			case '*'
				printf '%s\n' $line
		end
	end
end

for program in spipe-enc spipe-dec spipectl
	complete --command $program --no-files --arguments '(__spipe_complete)'
end
