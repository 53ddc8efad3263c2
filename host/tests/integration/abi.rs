//! Plugins written by hand in WebAssembly's text, which break the component ABI itself.

use std::borrow::Cow;

use wit_component::StringEncoding;
use wit_parser::Resolve;

const CONTRACT: &str = include_str!("../../../wit/trainer.wit");

/// A small plugin of which each part can be replaced by an attack.
pub struct Handmade {
    memory: Cow<'static, str>,
    start: Cow<'static, str>,
    more: Cow<'static, str>,
    describe: Cow<'static, str>,
    realloc: Cow<'static, str>,
    plan: Cow<'static, str>,
    post: Cow<'static, str>,
    /// The schema of its arguments.
    schema: String,
    /// Written over the honest data: where, and what.
    data: Vec<(usize, Vec<u8>)>,
}

/// Where the description is, and where the answer to a job.
pub const DESCRIPTION: usize = 16;
pub const ANSWER: usize = 64;
/// Where the answer's one word is: its case, and its text.
pub const WORD: usize = 512;
const TEXTS: usize = 1024;
/// What memory is counted in.
const PAGE: usize = 65_536;

impl Default for Handmade {
    fn default() -> Self {
        Self {
            memory: "2".into(),
            start: "".into(),
            more: "".into(),
            describe: "".into(),
            schema: r#"{"type":"object"}"#.into(),
            // Memory that is handed out and never taken back.
            realloc: "(global.get $next) (global.set $next (i32.add (global.get $next)
                      (i32.and (i32.add (local.get 3) (i32.const 15)) (i32.const -8))))"
                .into(),
            plan: "(i32.const 64)".into(),
            post: "".into(),
            data: Vec::new(),
        }
    }
}

impl Handmade {
    pub fn memory(self, memory: impl Into<Cow<'static, str>>) -> Self {
        let memory = memory.into();
        Self { memory, ..self }
    }

    pub fn start(self, start: impl Into<Cow<'static, str>>) -> Self {
        let start = start.into();
        Self { start, ..self }
    }

    pub fn more(self, more: impl Into<Cow<'static, str>>) -> Self {
        let more = more.into();
        Self { more, ..self }
    }

    pub fn describe(self, describe: impl Into<Cow<'static, str>>) -> Self {
        let describe = describe.into();
        Self { describe, ..self }
    }

    pub fn realloc(self, realloc: impl Into<Cow<'static, str>>) -> Self {
        let realloc = realloc.into();
        Self { realloc, ..self }
    }

    pub fn plan(self, plan: impl Into<Cow<'static, str>>) -> Self {
        let plan = plan.into();
        Self { plan, ..self }
    }

    pub fn post(self, post: impl Into<Cow<'static, str>>) -> Self {
        let post = post.into();
        Self { post, ..self }
    }

    pub fn schema(self, schema: String) -> Self {
        // Beyond the texts there is memory for the job.
        let pages = 3 + schema.len() / PAGE;
        Self { schema, ..self }.memory(pages.to_string())
    }

    pub fn data(mut self, at: usize, bytes: &[u8]) -> Self {
        self.data.push((at, bytes.to_vec()));
        self
    }

    /// The module, with the contract in it as a compiler leaves it.
    pub fn bytes(&self) -> Vec<u8> {
        let Self {
            memory,
            start,
            more,
            describe,
            realloc,
            plan,
            post,
            ..
        } = self;
        let start = match start.is_empty() {
            true => String::new(),
            false => format!("(func $start {start}) (start $start)"),
        };
        let image = self.memory_image();
        let free = image.len().next_multiple_of(PAGE);
        let data: String = image
            .iter()
            .fold(String::new(), |text, byte| text + &format!("\\{byte:02x}"));
        let text = format!(
            r#"(module
                (memory (export "memory") {memory})
                (global $next (mut i32) (i32.const {free}))
                {more} {start}
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) {realloc})
                (func (export "deepfinery:trainer/framework@0.1.0#describe") (result i32)
                    {describe} (i32.const 16))
                (func (export "cabi_post_deepfinery:trainer/framework@0.1.0#plan") (param i32)
                    {post})
                (func (export "deepfinery:trainer/framework@0.1.0#plan") (param i32) (result i32)
                    {plan})
                (data (i32.const 0) "{data}"))"#
        );
        let mut module = wat::parse_str(text).unwrap();
        let mut resolve = Resolve::default();
        let package = resolve.push_str("trainer.wit", CONTRACT).unwrap();
        let world = resolve.select_world(&[package], Some("plugin")).unwrap();
        let encoding = StringEncoding::UTF8;
        wit_component::embed_component_metadata(&mut module, &resolve, world, encoding).unwrap();
        module
    }

    fn memory_image(&self) -> Vec<u8> {
        let mut image = vec![0; TEXTS];
        let mut texts: Vec<u8> = Vec::new();
        let mut string = |image: &mut Vec<u8>, at: usize, text: &str| {
            put(image, at, TEXTS + texts.len());
            put(image, at + 4, text.len());
            texts.extend(text.as_bytes());
        };
        let prefix = "s3://bucket/runs/run-1/framework=handmade";
        for (index, text) in ["handmade", "1", "", &self.schema].iter().enumerate() {
            string(&mut image, DESCRIPTION + index * 8, text);
        }
        // The answer: its case, then a list of one word, no variables, and the texts.
        put(&mut image, ANSWER + 4, WORD);
        put(&mut image, ANSWER + 8, 1);
        string(&mut image, WORD + 4, "true");
        let layout = ["", "/checkpoints", "/logs", "/config", "/config/run.json"];
        for (index, part) in layout.iter().enumerate() {
            string(
                &mut image,
                ANSWER + 20 + index * 8,
                &format!("{prefix}{part}"),
            );
        }
        string(&mut image, ANSWER + 60, "step-{:06}");
        string(&mut image, ANSWER + 68, "{}");
        string(&mut image, ANSWER + 84, "{}");
        image.extend(texts);
        for (at, bytes) in &self.data {
            image[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        image
    }
}

fn put(image: &mut [u8], at: usize, number: usize) {
    let number = u32::try_from(number).unwrap();
    image[at..at + 4].copy_from_slice(&number.to_le_bytes());
}
