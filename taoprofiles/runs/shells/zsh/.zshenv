# zsh reads each of its files in the folder that ZDOTDIR names at that time; the user's files are in TAOPROF_ZDOTDIR.
_taoprof_own="$ZDOTDIR"
ZDOTDIR="$TAOPROF_ZDOTDIR"
[ -f "$ZDOTDIR/.zshenv" ] && . "$ZDOTDIR/.zshenv"
_taoprof_users="$ZDOTDIR"
ZDOTDIR="$_taoprof_own"
