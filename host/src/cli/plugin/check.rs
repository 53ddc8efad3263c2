//! `trainer plugin check` and `inspect`: runs the checks of a host, and shows the properties of a
//! file.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::{PluginFile, checked, empty_request, print};
use crate::metadata::is_of_every_pod;
use crate::plan::{Plan, Text};
use crate::plugin::golden::SelfTests;
use crate::plugin::inspect::{self, Form, Inspection};
use crate::plugin::{LoadError, PlanError, Plugin, Usage, error_chain};
use crate::request;
use crate::request::schema::mistakes::mistakes;

const MIB: usize = 1024 * 1024;

/// Prints the result of each check, up to the first failure.
pub(super) fn check(plugin: &PluginFile) -> anyhow::Result<()> {
    match verdicts(plugin) {
        Ok(0) => print("a host will accept this plugin\n"),
        Ok(mistakes) => bail!(
            "a host will accept {}, but it has mistakes ({mistakes}): see the lines that begin with warn or FAIL",
            plugin.file.display()
        ),
        Err(Failed { what, why }) => {
            line("FAIL", what, &why)?;
            bail!("a host will refuse {}", plugin.file.display())
        }
    }
}

struct Failed {
    what: &'static str,
    why: String,
}

impl Failed {
    fn new(what: &'static str) -> impl FnOnce(anyhow::Error) -> Self {
        move |error| Self {
            what,
            why: format!("{error:#}"),
        }
    }
}

/// Prints what a host checks, and gives the number of mistakes that it accepts.
fn verdicts(plugin: &PluginFile) -> Result<usize, Failed> {
    let bytes = std::fs::read(&plugin.file).map_err(|error| Failed::new("file")(error.into()))?;
    let loader = plugin
        .loader(SelfTests::Run)
        .map_err(Failed::new("settings"))?;
    let most = loader.limits().file_bytes;
    let size = format!(
        "{} KB of {} MiB (limit file_mib)",
        bytes.len() / 1000,
        most / MIB
    );
    match bytes.len() <= most {
        true => ok("size", &size)?,
        false => {
            return Err(Failed {
                what: "size",
                why: size,
            });
        }
    }
    let found = inspect::inspect(&bytes).map_err(failed)?;
    inspect::check(&found).map_err(failed)?;
    let contract = found.contract.as_deref().unwrap_or_default();
    let spoken = inspect::spoken();
    ok(
        "contract",
        &format!("{contract}; this host supports {spoken}"),
    )?;
    ok("imports", "none")?;
    let begun = Instant::now();
    let loaded = loader.file(&plugin.file).map_err(failed)?;
    let allowed = loader.limits().compile_time.as_secs();
    let took = begun.elapsed().as_secs_f64();
    ok(
        "compiles",
        &format!("ready in {took:.2} s of {allowed} s (limit compile_seconds)"),
    )?;
    let identity = &loaded.identity;
    ok(
        "describe",
        &format!("{} {}: {}", identity.name, identity.version, loaded.summary),
    )?;
    ok("schema", &format!("{} arguments", arguments(&loaded)))?;
    let fields = request::json_schema()["properties"].as_object();
    let fields = fields.into_iter().flatten().map(|(name, _)| name.as_str());
    let in_schema = mistakes(&loaded.args_schema, &fields.collect());
    warn("schema", &in_schema)?;
    ok("self-tests", &own_tests(&found))?;
    Ok(in_schema.len() + trial(&loaded)?)
}

/// Which check an error belongs to.
fn failed(error: LoadError) -> Failed {
    let what = match error {
        LoadError::NotWebAssembly(_) => "WebAssembly",
        LoadError::Imports { .. } => "imports",
        LoadError::NoContract | LoadError::ContractVersion { .. } => "contract",
        LoadError::Source(_) => "source",
        LoadError::Size { .. } => "size",
        _ => "trial",
    };
    let why = error_chain(&error);
    Failed { what, why }
}

/// Makes a call, and gives the number of mistakes in its answer.
fn trial(plugin: &Plugin) -> Result<usize, Failed> {
    let request = empty_request(&plugin.identity.name);
    let Ok(checked) = checked(plugin, request) else {
        ok(
            "call",
            "it has required arguments; use `trainer plugin run`",
        )?;
        return Ok(0);
    };
    let (planned, usage) = plugin.plan_measured(&checked.request, "{}");
    let used = used(plugin, usage);
    match planned {
        Ok(plan) => {
            ok("call", &format!("planned a job without arguments {used}"))?;
            let in_plan = mistakes_of(&plan);
            warn("plan", &in_plan)?;
            Ok(in_plan.len())
        }
        Err(PlanError::Refused(findings)) => {
            let codes: Vec<&str> = findings
                .iter()
                .map(|finding| finding.code.as_str())
                .collect();
            let codes = codes.join(", ");
            ok(
                "call",
                &format!("refused a job without arguments ({codes}) {used}"),
            )?;
            Ok(0)
        }
        Err(error) => {
            // A host finds that out when somebody asks for such a job.
            let why = error_chain(&error);
            line("FAIL", "call", &why).map_err(Failed::new("output"))?;
            Ok(1)
        }
    }
}

/// What a host accepts in a plan and its author did not mean.
fn mistakes_of(plan: &Plan) -> Vec<String> {
    let mut found = Vec::new();
    if plan.warnings.iter().any(|warning| warning.code.is_empty()) {
        found.push("a warning has no code; clients tell warnings apart by it".to_string());
    }
    let set = |name: &str| plan.environment.iter().any(|set| set.name == name);
    let values = plan.environment.iter().map(|set| &set.value);
    for text in plan.command.iter().chain(values) {
        let Text::Template(template) = text else {
            continue;
        };
        let unset = variables(template).filter(|name| !set(name) && !is_of_every_pod(name));
        found
            .extend(unset.map(|name| {
                format!("the template {template:?} names $({name}), which no pod has")
            }));
    }
    found
}

/// The variables that a template names. `$$` is a dollar sign.
fn variables(template: &str) -> impl Iterator<Item = &str> {
    let parts = template
        .split("$$")
        .flat_map(|part| part.split("$(").skip(1));
    parts.filter_map(|part| Some(part.split_once(')')?.0))
}

fn used(plugin: &Plugin, usage: Usage) -> String {
    let limits = plugin.limits();
    format!(
        "in {} of {} ms (limit time_ms), with {:.1} of {} MiB (limit memory_mib)",
        short(usage.time),
        limits.time.as_millis(),
        usage.memory_bytes as f64 / MIB as f64,
        limits.memory_bytes / MIB
    )
}

/// A readable duration.
pub(super) fn short(time: Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    match micros < 1000.0 {
        true => format!("{micros:.0} us"),
        false => format!("{:.1} ms", micros / 1e3),
    }
}

/// Prints the properties of a file.
pub(super) fn inspect(file: &Path) -> anyhow::Result<()> {
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let found = inspect::inspect(&bytes)?;
    let form = match found.form {
        Form::Component => "component",
        Form::Module => "module (a host converts it to a component)",
    };
    let list = |names: &[String]| match names {
        [] => "none".to_string(),
        names => names.join(", "),
    };
    print(&format!(
        "digest    {}\nsize      {} bytes\nform      {form}\ncontract  {}\nimports   {}\nexports   \
         {}\ntests     {}\n",
        crate::plugin::source::Digest::of(&bytes),
        bytes.len(),
        found.contract.as_deref().unwrap_or("none"),
        list(&found.imports),
        list(&found.exports),
        own_tests(&found),
    ))
}

fn own_tests(found: &Inspection) -> String {
    let tests = found.self_tests.as_deref().unwrap_or("[]");
    let tests: Vec<serde_json::Value> = serde_json::from_str(tests).unwrap_or_default();
    match tests.len() {
        0 => "none; `trainer plugin build` includes those in tests/".to_string(),
        count => format!("{count} included"),
    }
}

fn arguments(plugin: &Plugin) -> usize {
    let properties = plugin.args_schema["properties"].as_object();
    properties.map_or(0, serde_json::Map::len)
}

fn ok(what: &'static str, how: &str) -> Result<(), Failed> {
    line("ok", what, how).map_err(Failed::new("output"))
}

fn warn(what: &'static str, mistakes: &[String]) -> Result<(), Failed> {
    mistakes
        .iter()
        .try_for_each(|mistake| line("warn", what, mistake).map_err(Failed::new("output")))
}

fn line(verdict: &str, what: &str, how: &str) -> anyhow::Result<()> {
    print(&format!("{verdict:<5} {what:<11} {how}\n"))
}

#[cfg(test)]
mod tests {
    use super::variables;

    #[test]
    fn the_variables_of_a_template_are_found() {
        let found = |template| variables(template).collect::<Vec<_>>();
        assert_eq!(found("--rank=$(RANK) $(NOPE)"), ["RANK", "NOPE"]);
        assert_eq!(found("a $$(RANK) $ ( $(OPEN"), Vec::<&str>::new());
    }
}
