//! Completion scripts: those of clap, extended by job names.

use clap::{Command, CommandFactory};
use clap_complete::Shell;

use crate::cli::CommandLine;

/// Stands for the commands that take jobs.
const COMMANDS: &str = "COMMANDS";
/// Stands for those that take several.
const SEVERAL: &str = "SEVERAL";

/// Job names for bash, before the completions of clap.
const BASH: &str = r#"
_trainer_jobs() {
    local current=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]}
    if [[ $current != -* && $command =~ ^(COMMANDS)$ &&
        ($COMP_CWORD -eq 2 || $command =~ ^(SEVERAL)$) ]]; then
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
complete -c trainer -f -n \"__fish_seen_subcommand_from COMMANDS\" \
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
        Shell::Bash => {
            let of_jobs = BASH.replace(COMMANDS, &commands_with(&["job", "jobs"]).join("|"));
            script + &of_jobs.replace(SEVERAL, &commands_with(&["jobs"]).join("|"))
        }
        Shell::Zsh => {
            let completed = script
                .replace(
                    "Name of the job:_default'",
                    "Name of the job:_trainer_jobs'",
                )
                .replace("to six jobs:_default'", "to six jobs:_trainer_jobs'")
                .replace(
                    "Names of the jobs:_default'",
                    "Names of the jobs:_trainer_jobs'",
                );
            match completed.split_once('\n') {
                // zsh reads the command from the first line.
                Some((first, rest)) => format!("{first}\n{ZSH}{rest}"),
                None => completed,
            }
        }
        Shell::Fish => script + &FISH.replace(COMMANDS, &commands_with(&["job", "jobs"]).join(" ")),
        _ => script,
    }
}

/// The commands that have one of these arguments.
fn commands_with(ids: &[&str]) -> Vec<String> {
    let has_one = |command: &&Command| {
        let mut arguments = command.get_arguments();
        arguments.any(|argument| ids.contains(&argument.get_id().as_str()))
    };
    let command = CommandLine::command();
    let commands = command.get_subcommands().filter(has_one);
    commands
        .map(|command| command.get_name().to_string())
        .collect()
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
        let zsh = script(Shell::Zsh);
        assert!(zsh.contains("Name of the job:_trainer_jobs"));
        assert!(zsh.contains("Names of the jobs:_trainer_jobs"));
        assert!(zsh.contains("Names of two to six jobs:_trainer_jobs"));
        let commands = "clone|get|manifest|logs|events|watch|metrics|compare|suspend|resume|delete";
        assert!(script(Shell::Bash).contains(commands));
        assert!(script(Shell::Bash).contains("^(compare|suspend|resume|delete)$"));
        assert!(script(Shell::Fish).contains(&commands.replace('|', " ")));
    }
}
