//! The rules of hf for the schedule of the learning rate.

use trainer_plugin::{Breach, Launch, Rule, Violation, refuse};

#[rustfmt::skip]
pub const RULES: &[Rule] = &[
    refuse("H09", "schedules that depend on evaluation require it", "transformers \
                                                                     training_args.py", schedule_needs_evaluation),
    refuse("H15", "schedules with a final learning rate or decay phase require min_lr or \
                   decay_steps", "transformers optimization.py", schedule_has_its_arguments),
    refuse("H16", "min_lr and decay_steps require a schedule that supports them", "transformers \
                                                                                   optimization.py", arguments_have_their_schedule),
    refuse("H17", "lr_scheduler_kwargs excludes min_lr and decay_steps, which are members of it", "definition", one_spelling),
    refuse("H18", "warm-up and decay fit into max_steps", "definition", decay_fits),
];

/// Where transformers itself takes the arguments of a schedule.
const KEYWORDS: &str = "lr_scheduler_kwargs";

/// An argument that a schedule needs.
struct Needed {
    schedules: &'static [&'static str],
    argument: &'static str,
    /// The members of `lr_scheduler_kwargs` that stand for it.
    keywords: &'static [&'static str],
}

const NEEDED: &[Needed] = &[
    Needed {
        schedules: &["cosine_with_min_lr", "cosine_warmup_with_min_lr"],
        argument: "min_lr",
        keywords: &["min_lr", "min_lr_rate"],
    },
    Needed {
        schedules: &["warmup_stable_decay"],
        argument: "decay_steps",
        keywords: &["num_decay_steps"],
    },
];

fn schedule_needs_evaluation(launch: &Launch) -> Option<Violation> {
    let schedule = launch.text("lr_scheduler")?;
    let watches = matches!(schedule.as_ref(), "reduce_lr_on_plateau" | "greedy");
    if !watches || launch.text("eval_strategy")? != "no" {
        return None;
    }
    Violation::new(
        &["lr_scheduler"],
        format!("extra_args.lr_scheduler {schedule} requires eval_strategy steps or epoch"),
    )
}

fn schedule_has_its_arguments(launch: &Launch) -> Option<Violation> {
    let schedule = launch.text("lr_scheduler")?;
    let needed = NEEDED
        .iter()
        .find(|needed| needed.schedules.contains(&schedule.as_ref()))?;
    let argument = needed.argument;
    let refused = launch.arguments.is_refused(argument);
    let keywords = launch.value(KEYWORDS).unwrap_or_default();
    // A string is JSON that transformers reads itself.
    let in_keywords = needed
        .keywords
        .iter()
        .any(|keyword| match keywords.as_str() {
            Some(text) => text.contains(keyword),
            None => !keywords[*keyword].is_null(),
        });
    if launch.is_given(argument) || in_keywords || refused {
        return None;
    }
    Violation::new(
        &["lr_scheduler"],
        format!("extra_args.lr_scheduler {schedule} requires {argument}"),
    )
}

fn arguments_have_their_schedule(launch: &Launch) -> Option<Violation> {
    const ARGUMENTS: [(&[&str], &[&str]); 2] = [
        (
            &["min_lr"],
            &[
                "cosine_with_min_lr",
                "cosine_warmup_with_min_lr",
                "reduce_lr_on_plateau",
            ],
        ),
        (&["decay_steps"], &["warmup_stable_decay"]),
    ];
    let schedule = launch.text("lr_scheduler")?;
    let astray = ARGUMENTS.into_iter().filter(|(argument, schedules)| {
        launch.is_given(argument[0]) && !schedules.contains(&schedule.as_ref())
    });
    Violation::all(astray.map(|(argument, schedules)| {
        let detail = format!(
            "extra_args.{} has no effect with lr_scheduler {schedule}; it requires {}",
            argument[0],
            schedules.join(", ")
        );
        Breach::new(argument, detail)
    }))
}

fn one_spelling(launch: &Launch) -> Option<Violation> {
    let both = launch.is_given("min_lr") || launch.is_given("decay_steps");
    if !both || !launch.is_given(KEYWORDS) {
        return None;
    }
    Violation::new(
        &[KEYWORDS],
        "extra_args: lr_scheduler_kwargs cannot be combined with min_lr and decay_steps; set them \
         inside lr_scheduler_kwargs",
    )
}

fn decay_fits(launch: &Launch) -> Option<Violation> {
    let (decay, steps) = (launch.integer("decay_steps")?, launch.integer("max_steps")?);
    let warmup = launch.integer("warmup_steps")?;
    if decay.saturating_add(warmup) <= steps {
        return None;
    }
    Violation::new(
        &["decay_steps"],
        format!(
            "extra_args.decay_steps ({decay}) and warmup_steps ({warmup}) must not exceed \
             max_steps ({steps})"
        ),
    )
}
