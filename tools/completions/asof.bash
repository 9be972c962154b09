# SPDX-License-Identifier: Apache-2.0
# Completion of asof for bash.  What there is to offer, the program itself says (asof --complete).
# shellcheck shell=bash

_asof() {
	local words=() word cur i what value list
	# bash has cut the line at : and =, too, which times and --option=VALUE have inside.
	for ((i = 1; i <= COMP_CWORD; i++)); do
		word=${COMP_WORDS[i]}
		if ((${#words[@]} > 1)) && [[ $word == [:=]* || ${words[-1]} == *[:=] ]]; then
			words[-1]+=$word
		else
			words+=("$word")
		fi
	done
	words=("${words[@]//\\/}")
	cur=${words[-1]}
	COMPREPLY=()
	list=$("$1" --complete "${words[@]}" 2>/dev/null) || return 0
	{
		read -r what
		while IFS=$'\t' read -r value _; do
			# Only what stands behind the last cut is bash's to complete.
			[[ $cur != *[:=]* ]] || value=${value#"${cur%"${cur##*[:=]}"}"}
			printf -v value '%q ' "$value"
			COMPREPLY+=("$value")
		done
	} <<<"$list"
	compopt -o nospace
	case $what in
	files | folders)
		compopt +o nospace -o filenames
		word=-f
		[[ $what == files ]] || word=-d
		while IFS= read -r value; do
			COMPREPLY+=("$value")
		done < <(compgen "$word" -- "${cur##*[:=]}")
		;;
	esac
}

complete -F _asof asof
