//! Families of hostile plugins: each grows in one direction until the host refuses it. A plugin
//! that is still served gets the values that cost the most.

mod modules;
mod schemas;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use trainer_host::plugin::Reload;

use crate::abi::Handmade;
use crate::service::{Answer, Service, meta_with, request};
use modules::MODULES;
use schemas::{SCHEMAS, times};

/// Small limits, so that what exhausts them does so soon.
const SETTINGS: &str = "[host]\ncompile_seconds = 3\ncompile_memory_mib = 256\nfile_mib = 8\n\
                        [defaults]\ntime_ms = 300\nfailures = 1000\n";
/// What loading, and an answer, may take. The limits are far below, and what they do not bound takes
/// minutes; a machine with other work may need the rest.
const LONGEST: Duration = Duration::from_secs(30);
/// Larger files are not made.
const MOST_BYTES: usize = 4 * 1024 * 1024;
/// Where the sizes of a family begin, and how they grow.
const FIRST: usize = 4;
const FACTOR: usize = 8;
/// The size in an ordinary run.
const SMALL: usize = FIRST * FACTOR;

/// Arguments that make a schema work.
fn expensive_arguments() -> Vec<Value> {
    let many = times(3000, |at| (format!("p{at}"), "x"));
    vec![
        json!({}),
        json!({"a": "x".repeat(60_000)}),
        json!({"a": "é".repeat(20_000)}),
        json!({"a": (0..9000).collect::<Vec<_>>()}),
        json!({"a": vec![json!({"x": [1]}); 4000]}),
        json!({"a": (0..100).fold(json!(1), |inner, _| json!([inner]))}),
        json!({"a": (0..100).fold(json!({}), |inner, _| json!({"a": inner}))}),
        many,
    ]
}

struct Attacked {
    service: Service,
    folder: TempDir,
    served: usize,
    refused: usize,
}

impl Attacked {
    async fn new() -> Self {
        let folder = meta_with(SETTINGS);
        Self {
            service: Service::with(folder.path().to_path_buf(), None).await,
            folder,
            served: 0,
            refused: 0,
        }
    }

    /// Grows a plugin until it is refused, and asks each one that is served. One that is larger
    /// still is refused, too.
    async fn grow(&mut self, family: &str, plugin: impl Fn(usize) -> Handmade) {
        let mut size = FIRST;
        while self.loads(&plugin(size)) {
            self.served += 1;
            self.ask(family, size).await;
            size *= FACTOR;
            assert!(size < 1 << 30, "{family} is never refused");
        }
        self.refused += 1;
        if plugin(size).bytes().len() * FACTOR < MOST_BYTES {
            let is_served = self.loads(&plugin(size * FACTOR));
            assert!(!is_served, "{family} of {}", size * FACTOR);
            self.refused += 1;
        }
        self.check_the_others(&format!("{family} of {size}")).await;
    }

    async fn try_one(&mut self, family: &str, plugin: &Handmade) {
        match self.loads(plugin) {
            true => {
                self.served += 1;
                self.ask(family, SMALL).await;
            }
            false => self.refused += 1,
        }
    }

    fn loads(&self, plugin: &Handmade) -> bool {
        std::fs::write(self.folder.path().join("attack.wasm"), plugin.bytes()).unwrap();
        let begun = Instant::now();
        self.service.registry.reload(Reload::Changed);
        assert!(begun.elapsed() < LONGEST, "{:?}", begun.elapsed());
        let plugins = self.service.registry.current();
        plugins.refused().is_empty()
    }

    async fn ask(&self, family: &str, size: usize) {
        for arguments in expensive_arguments() {
            let mut hostile = request("x", "run-1");
            hostile["framework"] = json!("handmade");
            hostile["extra_args"] = arguments;
            let begun = Instant::now();
            let Answer { status, text, .. } = self.service.preview(&hostile).await;
            let time = begun.elapsed();
            assert!(time < LONGEST, "{family} of {size}: {time:?}");
            let is_known = [200, 400, 429, 502].contains(&status.as_u16());
            assert!(is_known, "{family} of {size}: {status} {text:.300}");
        }
        self.check_the_others(&format!("{family} of {size}")).await;
    }

    async fn check_the_others(&self, after: &str) {
        let other = self.service.preview(&request("x", "run-1")).await;
        assert_eq!(other.status, 200, "after {after}");
    }
}

/// What the tests below push to the limit, in a size that costs little.
#[tokio::test]
async fn a_small_plugin_of_each_family_harms_nothing() {
    let mut attacked = Attacked::new().await;
    for (family, schema) in SCHEMAS {
        let plugin = Handmade::default().schema(schema(SMALL).to_string());
        attacked.try_one(family, &plugin).await;
    }
    for (family, module) in MODULES {
        attacked.try_one(family, &module(SMALL)).await;
    }
    let Attacked {
        served, refused, ..
    } = attacked;
    assert!(served + refused >= 80, "{served} and {refused}");
    assert!(served >= 40 && refused >= 5, "{served} and {refused}");
}

#[tokio::test]
#[ignore = "minutes: make test-hostile"]
async fn whatever_a_schema_has_too_much_of_costs_no_more_than_a_call() {
    let mut attacked = Attacked::new().await;
    for (family, schema) in SCHEMAS {
        let plugin = |size| Handmade::default().schema(schema(size).to_string());
        attacked.grow(family, plugin).await;
    }
    let Attacked {
        served, refused, ..
    } = attacked;
    println!("{served} schemas were served and {refused} refused");
    assert!(served + refused >= 80, "{served} and {refused}");
    restarts_clean(attacked).await;
}

#[tokio::test]
#[ignore = "minutes: make test-hostile"]
async fn whatever_a_module_has_too_much_of_is_refused() {
    let mut attacked = Attacked::new().await;
    for (family, module) in MODULES {
        attacked.grow(family, module).await;
    }
    let Attacked {
        served, refused, ..
    } = attacked;
    println!("{served} modules were served and {refused} refused");
    assert!(served + refused >= 40, "{served} and {refused}");
    restarts_clean(attacked).await;
}

/// A start with everything that was kept of hostile plugins.
async fn restarts_clean(attacked: Attacked) {
    let Attacked {
        service, folder, ..
    } = attacked;
    let begun = Instant::now();
    let data = service.stop().await;
    let registry = crate::service::registry(folder.path(), data.path());
    assert!(begun.elapsed() < LONGEST, "{:?}", begun.elapsed());
    let plugins = registry.current();
    assert!(plugins.get("meta").is_some());
    assert_eq!(plugins.refused().len(), 1);
}
