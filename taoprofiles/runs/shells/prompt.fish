functions -c fish_prompt _taoprof_prompt
function fish_prompt
    echo -n "(taoprof:$TAOPROF_PROFILE) "
    _taoprof_prompt
end
