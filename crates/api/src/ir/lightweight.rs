//! The command line of lightweight Python components.
//!
//! `kfp.compiler` gives such a component the command `sh -ec SCRIPT SOURCE` (`_get_command_and_args_for_lightweight_
//! component` in `kfp/dsl/component_factory.py`): the script writes the source to a file and runs the SDK's executor on
//! it. Whoever does the same without a shell need only know source and arguments. Only the script that the compiler
//! writes is recognised, however its lines are indented; anything else is `None`, and runs as it is written.

/// The module that runs the function of a component.
pub const EXECUTOR: &str = "kfp.dsl.executor_main";

/// What the script is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lightweight<'a> {
    /// The component's Python source.
    pub source: &'a str,
    /// The arguments of [`EXECUTOR`], after the one that names the source's file.
    pub args: &'a [String],
}

/// The lines of the script, as words.
const SCRIPT: [&str; 3] = [
    "program_path=$(mktemp -d)",
    r#"printf "%s" "$0" > "$program_path/ephemeral_component.py""#,
    r#"_KFP_RUNTIME=true python3 -m kfp.dsl.executor_main --component_module_path "$program_path/ephemeral_component.py" "$@""#,
];

/// Reads the whole command line of a container: its command, and then its arguments.
#[must_use]
pub fn parse(argv: &[String]) -> Option<Lightweight<'_>> {
    let [shell, options, script, source, args @ ..] = argv else {
        return None;
    };
    let is_known = shell == "sh" && options == "-ec" && is_script(script);
    is_known.then_some(Lightweight { source, args })
}

fn is_script(text: &str) -> bool {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let is_line = |(line, expected): (&str, &str)| line.split_whitespace().eq(expected.split_whitespace());
    lines.clone().count() == SCRIPT.len() && lines.zip(SCRIPT).all(is_line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    /// As kfp 2.17 writes it.
    const WRITTEN: &str = "program_path=$(mktemp -d)\n\nprintf \"%s\" \"$0\" > \
                           \"$program_path/ephemeral_component.py\"\n_KFP_RUNTIME=true python3 -m \
                           kfp.dsl.executor_main                         --component_module_path                         \
                           \"$program_path/ephemeral_component.py\"                         \"$@\"\n";

    #[test]
    fn what_the_compiler_writes_is_recognised() {
        let args = ["--executor_input", "{{$}}", "--function_to_execute", "add"];
        let mut argv = strings(&["sh", "-ec", WRITTEN, "def add(): pass\n"]);
        argv.extend(strings(&args));
        let found = parse(&argv).unwrap();
        assert_eq!(
            (found.source, found.args),
            ("def add(): pass\n", &strings(&args)[..])
        );
        argv[2] = WRITTEN.replace('\n', "\n    ");
        assert!(parse(&argv).is_some());
    }

    #[test]
    fn anything_else_runs_as_written() {
        for script in [
            WRITTEN.replace("_KFP_RUNTIME=true ", ""),
            WRITTEN.replace("kfp.dsl.executor_main", "kfp.components.executor_main"),
            WRITTEN.replace("python3", "python3 -O"),
            WRITTEN.replace("-d)\n\n", "-d) "),
            format!("{WRITTEN}echo done\n"),
            String::new(),
        ] {
            assert_eq!(
                parse(&strings(&["sh", "-ec", &script, "source"])),
                None,
                "{script}"
            );
        }
        assert_eq!(parse(&strings(&["sh", "-c", WRITTEN, "source"])), None);
        assert_eq!(parse(&strings(&["sh", "-ec", WRITTEN])), None);
        assert_eq!(parse(&strings(&["python3", "main.py"])), None);
    }
}
