//! Documentation of frameworks, arguments and rules, rendered from what their plugins publish.

mod argument;
mod codes;
mod template;
mod values;

use std::fmt::Write;

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Value, json};

use argument::Argument;
pub use codes::{own_code, own_codes};
pub use template::request_template;

use crate::suggestion::nearest;

/// A framework as its plugin describes it.
#[derive(Clone, Copy, Debug)]
pub struct Framework<'a> {
    pub name: &'a str,
    pub version: &'a str,
    pub summary: &'a str,
    /// The JSON Schema of `extra_args`.
    pub schema: &'a Value,
}

/// How an explanation is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// For a terminal of this width.
    Terminal { columns: u16 },
    /// For a page of the documentation.
    Markdown,
    /// For programs: the plugin's own schema, as JSON.
    Json,
}

/// Why a topic cannot be explained.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unexplained {
    #[error(
        "unknown topic {topic}{hint}: neither a framework ({frameworks}) nor the code of a rule or an \
         error"
    )]
    Topic {
        topic: String,
        /// The nearest name, in brackets.
        hint: String,
        frameworks: String,
    },
    #[error("{framework} has no argument {argument}{hint}")]
    Argument {
        framework: String,
        argument: String,
        /// A suggestion of the nearest name, or empty.
        hint: String,
    },
}

/// Explains a framework (`hf`), one of its arguments (`hf.lr`, under any of its names), a rule (`N01`)
/// or a code of the service itself (`type`).
///
/// # Errors
///
/// Which part of the topic is unknown, and what exists.
pub fn explain(topic: &str, frameworks: &[Framework], style: Style) -> Result<String, Unexplained> {
    let (name, argument) = match topic.split_once('.') {
        Some((name, argument)) => (name, Some(argument)),
        None => (topic, None),
    };
    let framework = frameworks.iter().find(|framework| framework.name == name);
    match (framework, argument) {
        (Some(framework), Some(argument)) => {
            let argument = find(framework, argument)?;
            Ok(match style {
                Style::Json => pretty(argument.schema),
                _ => one_argument(framework, &argument),
            })
        }
        (Some(framework), None) => Ok(match style {
            Style::Terminal { columns } => for_terminal(framework, columns),
            Style::Markdown => page(framework),
            Style::Json => pretty(framework.schema),
        }),
        (None, _) => match own_code(topic, style) {
            Some(text) => Ok(text),
            None => rule(topic, frameworks, style),
        },
    }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// One line for each framework.
pub fn overview(frameworks: &[Framework]) -> String {
    let mut text = String::new();
    for Framework { name, summary, .. } in frameworks {
        let _ = writeln!(text, "{name:<8} {summary}");
    }
    text.push_str(
        "\nTo explain one: trainer explain NAME. Also: an argument (NAME.lr) or a code (E05, type).\n",
    );
    text
}

/// The argument with this name or alias.
fn find<'a>(framework: &Framework<'a>, argument: &str) -> Result<Argument<'a>, Unexplained> {
    let key = argument.replace('-', "_");
    let mut arguments = Argument::of(framework);
    let found = arguments
        .iter()
        .position(|known| known.names().any(|name| name == key));
    match found {
        Some(at) => Ok(arguments.swap_remove(at)),
        None => Err(Unexplained::Argument {
            framework: framework.name.to_string(),
            argument: argument.to_string(),
            hint: nearest(&key, arguments.iter().flat_map(Argument::names))
                .map(|name| format!(", did you mean {}.{name}?", framework.name))
                .unwrap_or_default(),
        }),
    }
}

fn one_argument(framework: &Framework, found: &Argument) -> String {
    let example = match &found.schema["examples"][0] {
        Value::Null => String::new(),
        example => format!("\"{}\": {example}", found.name),
    };
    let lines = [
        ("takes", found.values()),
        ("default", found.default()),
        ("also takes", found.value_aliases()),
        ("also called", found.aliases()),
        ("native name", found.text("x-native").to_string()),
        ("example", example),
    ];
    let mut text = format!(
        "{}.{}: {}\n\n",
        framework.name,
        found.name,
        found.text("description")
    );
    for (name, value) in lines.into_iter().filter(|(_, value)| !value.is_empty()) {
        let _ = writeln!(text, "  {name:<12} {value}");
    }
    text
}

/// A rule of a framework, or a check that applies to every argument.
#[derive(PartialEq)]
struct Rule<'a> {
    code: &'a str,
    effect: &'a str,
    about: &'a str,
    source: &'a str,
}

impl<'a> Rule<'a> {
    /// The rules in a member of the schema: `x-rules` or `x-checks`.
    fn of(framework: &Framework<'a>, member: &str) -> Vec<Self> {
        let rules = framework.schema[member].as_array().into_iter().flatten();
        let text = |rule: &'a Value, member: &str| rule[member].as_str().unwrap_or_default();
        rules
            .map(|rule| Self {
                code: text(rule, "code"),
                effect: text(rule, "effect"),
                about: text(rule, "about"),
                source: text(rule, "source"),
            })
            .collect()
    }
}

fn rule(code: &str, frameworks: &[Framework], style: Style) -> Result<String, Unexplained> {
    // A rule that several frameworks share is listed once.
    let mut listed: Vec<(Rule, Vec<&str>)> = Vec::new();
    for framework in frameworks {
        let rules = ["x-rules", "x-checks"].map(|member| Rule::of(framework, member));
        let rules = rules.into_iter().flatten();
        for rule in rules.filter(|rule| rule.code.eq_ignore_ascii_case(code)) {
            match listed.iter_mut().find(|(same, _)| *same == rule) {
                Some((_, names)) => names.push(framework.name),
                None => listed.push((rule, vec![framework.name])),
            }
        }
    }
    if listed.is_empty() {
        let names: Vec<&str> = frameworks.iter().map(|framework| framework.name).collect();
        return Err(Unexplained::Topic {
            topic: code.to_string(),
            hint: hint(code, frameworks),
            frameworks: names.join(", "),
        });
    }
    if style == Style::Json {
        let listed = listed.iter().map(|(rule, names)| {
            json!({
                "code": rule.code,
                "effect": rule.effect,
                "about": rule.about,
                "source": rule.source,
                "frameworks": names,
            })
        });
        return Ok(pretty(&listed.collect()));
    }
    let listed = listed.iter().map(|(rule, names)| {
        let (effect, frameworks) = (effect(rule.effect), names.join(", "));
        format!(
            "{} ({effect}): {}\n\n  {:<12} {}\n  {:<12} {frameworks}\n",
            rule.code, rule.about, "source", rule.source, "frameworks"
        )
    });
    Ok(listed.collect::<Vec<_>>().join("\n"))
}

/// The topic that may be meant by one that is not there.
fn hint(topic: &str, frameworks: &[Framework]) -> String {
    let mut names: Vec<&str> = own_codes().collect();
    names.extend(frameworks.iter().map(|framework| framework.name));
    nearest(topic, names)
        .map(|name| format!(" (did you mean {name}?)"))
        .unwrap_or_default()
}

fn effect(effect: &str) -> &str {
    match effect {
        "refuse" => "refuses the job",
        "warn" => "warns",
        other => other,
    }
}

fn for_terminal(framework: &Framework, columns: u16) -> String {
    let mut arguments = table(columns, &["argument", "takes", "default", "meaning"]);
    for argument in Argument::of(framework) {
        arguments.add_row([
            argument.name.to_string(),
            argument.values(),
            argument.default(),
            argument.text("description").to_string(),
        ]);
    }
    let mut rules = table(columns, &["rule", "", "requirement"]);
    for member in ["x-rules", "x-checks"] {
        for rule in Rule::of(framework, member) {
            rules.add_row([rule.code, rule.effect, rule.about]);
        }
    }
    let Framework {
        name,
        version,
        summary,
        ..
    } = framework;
    let (arguments, rules) = (arguments.trim_fmt(), rules.trim_fmt());
    format!(
        "{name} {version}: {summary}\n\n{arguments}\n\n{rules}\n\n Details of one argument: \
         trainer explain {name}.ARGUMENT\n"
    )
}

fn table(columns: u16, header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(columns)
        .set_header(header);
    table
}

fn page(framework: &Framework) -> String {
    let Framework {
        name,
        version,
        summary,
        ..
    } = framework;
    let mut page = format!(
        "<!-- `make docs` writes this page from the plugin. -->\n# {name} {version}\n\n{summary}.\n\n\
         ## Arguments\n\n\
         | argument | takes | default | meaning | also called | native name |\n\
         | --- | --- | --- | --- | --- | --- |\n"
    );
    for argument in Argument::of(framework) {
        let cells = [
            format!("`{}`", argument.name),
            match argument.value_aliases().as_str() {
                "" => argument.values(),
                aliases => format!("{}; also {aliases}", argument.values()),
            },
            argument.default(),
            argument.text("description").to_string(),
            argument.aliases(),
            argument.text("x-native").to_string(),
        ];
        row(&mut page, &cells);
    }
    page.push_str("\n## Rules\n\n| rule | | requirement | source |\n| --- | --- | --- | --- |\n");
    for member in ["x-rules", "x-checks"] {
        for rule in Rule::of(framework, member) {
            let cells = [rule.code, rule.effect, rule.about, rule.source].map(str::to_string);
            row(&mut page, &cells);
        }
    }
    page
}

fn row(page: &mut String, cells: &[String]) {
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    let _ = writeln!(page, "| {} |", cells.join(" | "));
}
