# SPDX-License-Identifier: Apache-2.0
# Completion of asof for fish.  What there is to offer, the program itself says (asof --complete).

function __asof_complete
    set -l words (commandline -opc)
    set -l word (commandline -ct)
    set -l answer ($words[1] --complete $words[2..-1] $word 2>/dev/null)
    switch "$answer[1]"
        case files
            __fish_complete_path $word
        case folders
            __fish_complete_directories $word
    end
    printf '%s\n' $answer[2..-1]
end

complete -c asof -f -a '(__asof_complete)'
