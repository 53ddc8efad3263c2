//! What models are: the shapes of those that many know by name, and of others by their size.

/// The shape of a decoder-only transformer with gated feed-forward layers, as Llama has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Numbers of a token between layers.
    pub hidden: u64,
    pub layers: u64,
    pub heads: u64,
    /// Heads of keys and values, which query heads share.
    pub key_value_heads: u64,
    pub head_size: u64,
    /// Numbers of a token inside a feed-forward layer.
    pub feed_forward: u64,
    pub vocabulary: u64,
    pub output: Output,
    /// Biases and norms of an attention layer, beside its matrices.
    pub extra: Extra,
    /// The longest sequence that the model was made for.
    pub positions: u64,
}

/// The matrix that makes logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    Own,
    /// The embedding's.
    Tied,
}

/// What an attention layer has beside its matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extra {
    Nothing,
    /// Biases of queries, keys and values.
    Biases,
    /// Norms of the heads of queries and keys.
    HeadNorms,
}

/// What is known of a job's model.
#[derive(Clone, Copy, Debug)]
pub enum Model {
    /// Its name is in the table.
    Named(Shape),
    /// Somebody gave the number of its parameters, so its shape is a typical one of that size.
    Sized { parameters: f64, shape: Shape },
}

impl Shape {
    /// Parameters of the embedding, and of the output where it has its own.
    pub fn ends(&self) -> u64 {
        let embedding = self.vocabulary * self.hidden;
        match self.output {
            Output::Own => 2 * embedding,
            Output::Tied => embedding,
        }
    }

    /// Parameters of one layer.
    pub fn layer(&self) -> u64 {
        let queries = self.heads * self.head_size;
        let keys = self.key_value_heads * self.head_size;
        let extra = match self.extra {
            Extra::Nothing => 0,
            Extra::Biases => queries + 2 * keys,
            Extra::HeadNorms => 2 * self.head_size,
        };
        let attention = 2 * self.hidden * (queries + keys) + extra;
        let norms = 2 * self.hidden;
        attention + 3 * self.hidden * self.feed_forward + norms
    }

    /// Parameters of the whole model.
    pub fn parameters(&self) -> u64 {
        self.ends() + self.layers * self.layer() + self.hidden
    }

    /// Numbers of a token that enter and leave a linear layer, by any of its usual names. The names
    /// are Hugging Face's, and NeMo's of fused layers.
    pub fn linear(&self, name: &str) -> u64 {
        let queries = self.heads * self.head_size;
        let keys = self.key_value_heads * self.head_size;
        let (hidden, feed) = (self.hidden, self.feed_forward);
        match name {
            "q_proj" => hidden + queries,
            "k_proj" | "v_proj" => hidden + keys,
            "o_proj" | "output_proj" | "linear_proj" => queries + hidden,
            "gate_proj" | "up_proj" | "w1" | "w3" => hidden + feed,
            "down_proj" | "w2" | "linear_fc2" => feed + hidden,
            "linear_qkv" => hidden + queries + 2 * keys,
            "linear_fc1" => hidden + 2 * feed,
            "all-linear" => 2 * (hidden + queries) + 2 * (hidden + keys) + 3 * (hidden + feed),
            _ => 0,
        }
    }

    /// A typical shape for a number of parameters, with heads of size 128, as in models of 1 to 70 billion.
    fn typical(parameters: f64) -> Self {
        // Of a layer's 13 * hidden^2, and hidden / 128 layers.
        let hidden = (parameters * 128.0 / 13.0).cbrt().max(128.0) as u64;
        let hidden = hidden.next_multiple_of(128);
        Self {
            hidden,
            layers: hidden / 128,
            heads: hidden / 128,
            key_value_heads: (hidden / 512).max(1),
            head_size: 128,
            feed_forward: hidden * 7 / 2,
            vocabulary: 128_256,
            output: match parameters < 4e9 {
                true => Output::Tied,
                false => Output::Own,
            },
            extra: Extra::Nothing,
            positions: u64::MAX,
        }
    }
}

impl Model {
    /// The model of a request's `model_id`, and of its parameters in billions where they are given.
    pub fn find(model_id: &str, billions: Option<f64>) -> Option<Self> {
        let Some(billions) = billions else {
            return named(model_id).map(Self::Named);
        };
        let parameters = billions * 1e9;
        let shape = named(model_id).unwrap_or_else(|| Shape::typical(parameters));
        Some(Self::Sized { parameters, shape })
    }

    pub fn shape(&self) -> &Shape {
        match self {
            Self::Named(shape) | Self::Sized { shape, .. } => shape,
        }
    }

    pub fn parameters(&self) -> f64 {
        match self {
            Self::Named(shape) => shape.parameters() as f64,
            Self::Sized { parameters, .. } => *parameters,
        }
    }
}

/// The shape of a model that is in the table. A path or an address can hold anything, whatever its
/// last part is called, so only names of the hub and short names are looked up.
pub fn named(model_id: &str) -> Option<Shape> {
    let is_place = model_id.contains("://") || model_id.starts_with(['/', '.', '~']);
    if is_place || model_id.matches('/').count() > 1 {
        return None;
    }
    let name = model_id.rsplit('/').next().unwrap_or(model_id);
    let name = name.to_ascii_lowercase();
    let mut name = name.strip_prefix("meta-").unwrap_or(&name);
    // Tuned models have the shape of what they were tuned from.
    while let Some(shorter) = SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix)) {
        name = shorter;
    }
    let known = NAMED.iter().find(|(names, _)| names.contains(&name));
    known.map(|(_, shape)| *shape)
}

const SUFFIXES: &[&str] = &["-hf", "-instruct", "-chat", "-base", "-it"];

/// A shape of the Llama family, whose heads share `hidden` among them.
const fn llama(hidden: u64, layers: u64, heads: [u64; 2], feed_forward: u64) -> Shape {
    let [heads, key_value_heads] = heads;
    Shape {
        hidden,
        layers,
        heads,
        key_value_heads,
        head_size: hidden / heads,
        feed_forward,
        vocabulary: 128_256,
        output: Output::Own,
        extra: Extra::Nothing,
        positions: 131_072,
    }
}

const fn llama_2(hidden: u64, layers: u64, heads: [u64; 2], feed_forward: u64) -> Shape {
    Shape {
        vocabulary: 32_000,
        positions: 4096,
        ..llama(hidden, layers, heads, feed_forward)
    }
}

const fn qwen_2(hidden: u64, layers: u64, heads: [u64; 2], feed_forward: u64) -> Shape {
    Shape {
        vocabulary: 152_064,
        extra: Extra::Biases,
        ..llama(hidden, layers, heads, feed_forward)
    }
}

/// Small ones have a vocabulary without padding, and tie it.
const fn qwen_2_small(hidden: u64, layers: u64, heads: [u64; 2], feed_forward: u64) -> Shape {
    Shape {
        vocabulary: 151_936,
        output: Output::Tied,
        ..qwen_2(hidden, layers, heads, feed_forward)
    }
}

const fn qwen_3(hidden: u64, layers: u64, heads: [u64; 2], feed_forward: u64) -> Shape {
    Shape {
        head_size: 128,
        vocabulary: 151_936,
        extra: Extra::HeadNorms,
        positions: 40_960,
        ..llama(hidden, layers, heads, feed_forward)
    }
}

const fn tied(shape: Shape) -> Shape {
    Shape {
        output: Output::Tied,
        ..shape
    }
}

/// Each shape with its names, without owner, "meta-" and [`SUFFIXES`]. The numbers are those of each
/// model's config.json on the hub, under the owners meta-llama, Qwen and mistralai. Where releases of
/// one name differ in their positions, the longest counts.
#[rustfmt::skip]
const NAMED: &[(&[&str], Shape)] = &[
    (&["llama-2-7b", "llama2-7b"], llama_2(4096, 32, [32, 32], 11_008)),
    (&["llama-2-13b", "llama2-13b"], llama_2(5120, 40, [40, 40], 13_824)),
    (&["llama-2-70b", "llama2-70b"], llama_2(8192, 80, [64, 8], 28_672)),
    (&["llama-3-8b", "llama3-8b"], Shape { positions: 8192, ..llama(4096, 32, [32, 8], 14_336) }),
    (&["llama-3-70b", "llama3-70b"], Shape { positions: 8192, ..llama(8192, 80, [64, 8], 28_672) }),
    (&["llama-3.1-8b", "llama3.1-8b"], llama(4096, 32, [32, 8], 14_336)),
    (&["llama-3.1-70b", "llama3.1-70b", "llama-3.3-70b", "llama3.3-70b"], llama(8192, 80, [64, 8], 28_672)),
    (&["llama-3.1-405b", "llama3.1-405b"], llama(16_384, 126, [128, 8], 53_248)),
    (&["llama-3.2-1b", "llama3.2-1b"], tied(llama(2048, 16, [32, 8], 8192))),
    (&["llama-3.2-3b", "llama3.2-3b"], tied(llama(3072, 28, [24, 8], 8192))),
    (&["mistral-7b-v0.1", "mistral-7b-instruct-v0.1", "mistral-7b-v0.2", "mistral-7b-instruct-v0.2"], Shape { vocabulary: 32_000, positions: 32_768, ..llama(4096, 32, [32, 8], 14_336) }),
    (&["mistral-7b-v0.3", "mistral-7b-instruct-v0.3"], Shape { vocabulary: 32_768, positions: 32_768, ..llama(4096, 32, [32, 8], 14_336) }),
    (&["qwen2.5-0.5b"], Shape { positions: 32_768, ..qwen_2_small(896, 24, [14, 2], 4864) }),
    (&["qwen2.5-1.5b"], qwen_2_small(1536, 28, [12, 2], 8960)),
    (&["qwen2.5-3b"], Shape { positions: 32_768, ..qwen_2_small(2048, 36, [16, 2], 11_008) }),
    (&["qwen2.5-7b"], qwen_2(3584, 28, [28, 4], 18_944)),
    (&["qwen2.5-14b"], qwen_2(5120, 48, [40, 8], 13_824)),
    (&["qwen2.5-32b"], qwen_2(5120, 64, [40, 8], 27_648)),
    (&["qwen2.5-72b"], qwen_2(8192, 80, [64, 8], 29_568)),
    (&["qwen3-0.6b"], tied(qwen_3(1024, 28, [16, 8], 3072))),
    (&["qwen3-1.7b"], tied(qwen_3(2048, 28, [16, 8], 6144))),
    (&["qwen3-4b"], tied(qwen_3(2560, 36, [32, 8], 9728))),
    (&["qwen3-8b"], qwen_3(4096, 36, [32, 8], 12_288)),
    (&["qwen3-14b"], qwen_3(5120, 40, [40, 8], 17_408)),
    (&["qwen3-32b"], qwen_3(5120, 64, [64, 8], 25_600)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_models_have_the_parameters_that_their_files_have() {
        // The totals that the hub shows of each model's safetensors files.
        for (name, expected) in [
            ("meta-llama/Llama-2-7b-hf", 6_738_415_616_u64),
            ("meta-llama/Llama-2-13b-chat-hf", 13_015_864_320),
            ("meta-llama/Llama-2-70b-hf", 68_976_648_192),
            ("meta-llama/Meta-Llama-3-8B", 8_030_261_248),
            ("meta-llama-3-70b", 70_553_706_496),
            ("meta-llama/Llama-3.1-405B", 405_853_388_800),
            ("llama-3.2-1b", 1_235_814_400),
            ("meta-llama/Llama-3.2-3B-Instruct", 3_212_749_824),
            ("mistralai/Mistral-7B-v0.1", 7_241_732_096),
            ("mistralai/Mistral-7B-Instruct-v0.3", 7_248_023_552),
            ("Qwen/Qwen2.5-0.5B", 494_032_768),
            ("Qwen/Qwen2.5-7B-Instruct", 7_615_616_512),
            ("Qwen/Qwen2.5-72B", 72_706_203_648),
            ("Qwen/Qwen3-0.6B", 596_049_920),
            ("Qwen/Qwen3-8B", 8_190_735_360),
        ] {
            let shape = named(name).unwrap_or_else(|| panic!("{name}"));
            assert_eq!(shape.parameters(), expected, "{name}");
        }
    }

    #[test]
    fn a_place_or_another_name_is_not_in_the_table() {
        for name in [
            "/models/llama-3.1-8b",
            "./llama-3.1-8b",
            "s3://models/llama-3.1-8b",
            "a/b/llama-3.1-8b",
            "meta-llama/Llama-4-Scout-17B-16E",
            "llama-debug",
            "llama-3.1-8b-awq",
            "",
        ] {
            assert_eq!(named(name), None, "{name}");
        }
    }

    #[test]
    fn a_size_gives_a_shape_of_about_that_size() {
        for billions in [1.0, 3.0, 8.0, 70.0, 405.0] {
            let model = Model::find("/models/own", Some(billions)).unwrap();
            let parameters = model.shape().parameters() as f64 / 1e9;
            assert!(
                (0.7..1.6).contains(&(parameters / billions)),
                "{billions}: {parameters}"
            );
            assert_eq!(model.parameters(), billions * 1e9);
        }
        assert!(Model::find("/models/own", None).is_none());
    }
}
