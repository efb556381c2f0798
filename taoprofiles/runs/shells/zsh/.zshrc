ZDOTDIR="$_taoprof_users"
unset _taoprof_own _taoprof_users TAOPROF_ZDOTDIR
[ -f "$ZDOTDIR/.zshrc" ] && . "$ZDOTDIR/.zshrc"
PROMPT="(taoprof:$TAOPROF_PROFILE) $PROMPT"
