//! Completion scripts: those of clap, extended by job names.

use clap::{Command, CommandFactory};
use clap_complete::Shell;

use crate::cli::CommandLine;

/// Job names for bash, before the completions of clap.
const BASH: &str = r#"
_trainer_jobs() {
    local current=${COMP_WORDS[COMP_CWORD]}
    if [[ $COMP_CWORD -eq 2 && $current != -* &&
        ${COMP_WORDS[1]} =~ ^(get|logs|events|suspend|resume|delete)$ ]]; then
        COMPREPLY=($(compgen -W "$(trainer list -o name 2>/dev/null)" -- "$current"))
    else
        _trainer "$@"
    fi
}
complete -F _trainer_jobs -o bashdefault -o default trainer
"#;

/// Job names for zsh, whose script calls this function.
const ZSH: &str = r#"
_trainer_jobs() {
    local -a jobs
    jobs=(${(f)"$(trainer list -o name 2>/dev/null)"})
    compadd -a jobs
}
"#;

/// Job names for fish.
const FISH: &str = "
complete -c trainer -f -n \"__fish_seen_subcommand_from get logs events suspend resume delete\" \
-a \"(trainer list -o name 2>/dev/null)\"
";

/// The completion script for a shell.
pub fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(
        shell,
        &mut visible(CommandLine::command()),
        "trainer",
        &mut script,
    );
    let script = String::from_utf8_lossy(&script).into_owned();
    match shell {
        Shell::Bash => script + BASH,
        Shell::Zsh => {
            let completed = script.replace(
                "Name of the job:_default'",
                "Name of the job:_trainer_jobs'",
            );
            match completed.split_once('\n') {
                // zsh reads the command from the first line.
                Some((first, rest)) => format!("{first}\n{ZSH}{rest}"),
                None => completed,
            }
        }
        Shell::Fish => script + FISH,
        _ => script,
    }
}

/// The command without its internal subcommands.
fn visible(command: Command) -> Command {
    let shown = command
        .get_subcommands()
        .filter(|command| !command.is_hide_set());
    let shown: Vec<Command> = shown.cloned().collect();
    Command::new("trainer")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommands(shown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn no_shell_offers_what_only_the_service_calls() {
        for shell in Shell::value_variants() {
            let script = script(*shell);
            assert!(script.contains("submit"), "{shell}");
            for hidden in ["keep-replica", "make-plugin", "keep__replica"] {
                assert!(!script.contains(hidden), "{shell}: {hidden}");
            }
        }
    }

    #[test]
    fn names_of_jobs_are_asked_of_the_service() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = script(shell);
            assert!(script.contains("trainer list -o name"), "{shell}");
        }
        assert!(script(Shell::Zsh).contains("Name of the job:_trainer_jobs"));
    }
}
