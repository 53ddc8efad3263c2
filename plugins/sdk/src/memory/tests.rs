//! Estimates against numbers that are worked out by hand.

use super::*;

const GIB: f64 = 1_073_741_824.0;

/// A training of a named model in float32 with bfloat16 passes, on one GPU.
fn training(model_id: &str) -> Training {
    Training {
        model: Model::find(model_id, None).unwrap(),
        split: Parallelism {
            data: 1,
            tensor: 1,
            pipeline: 1,
            context: 1,
            expert: 1,
        },
        bytes: Bytes {
            weight: 4.0,
            gradient: 4.0,
            optimizer: 8.0,
            computed: 2.0,
        },
        sharding: Sharding {
            stage: Stage::Weights,
            ways: 1,
            place: Place::Gpu,
        },
        trained: Trained::All,
        working: Working::Stored,
        activations: Activations {
            sequences: 1,
            in_flight: 1,
            tokens: 2048,
            recomputed: Recomputed::None,
            residual: 4.0,
            residual_ways: 1,
            attention: Attention::Fused,
        },
        advice: Advice {
            recompute: "recompute",
            adapters: Some("adapters"),
            shard: None,
        },
    }
}

fn split(tensor: i64, pipeline: i64) -> Parallelism {
    Parallelism {
        tensor,
        pipeline,
        ..training("llama-3.2-1b").split
    }
}

#[test]
fn states_are_sixteen_bytes_of_each_parameter() {
    let estimate = training("llama-3.1-8b").estimate();
    // All but the last norm.
    let parameters = 8_030_261_248.0 - 4096.0;
    assert_eq!(estimate.states(), 16.0 * parameters);
    assert_eq!(estimate.weights, 4.0 * parameters);
    assert_eq!(estimate.optimizer, 8.0 * parameters);
}

#[test]
fn each_stage_shares_what_the_one_before_does_not() {
    let shared = |stage| {
        let mut training = training("llama-3.1-8b");
        training.sharding = Sharding {
            stage,
            ways: 8,
            place: Place::Gpu,
        };
        let Estimate {
            weights,
            gradients,
            optimizer,
            ..
        } = training.estimate();
        [weights, gradients, optimizer]
    };
    let [weights, gradients, optimizer] = shared(Stage::Nothing);
    for (stage, expected) in [
        (Stage::Optimizer, [weights, gradients, optimizer / 8.0]),
        (
            Stage::Gradients,
            [weights, gradients / 8.0, optimizer / 8.0],
        ),
        (
            Stage::Weights,
            [weights / 8.0, gradients / 8.0, optimizer / 8.0],
        ),
    ] {
        assert_eq!(shared(stage), expected, "{stage:?}");
    }
}

#[test]
fn what_waits_in_the_hosts_memory_takes_none_of_the_gpus() {
    let mut training = training("llama-3.1-8b");
    training.sharding.place = Place::Host;
    assert_eq!(training.estimate().states(), 0.0);
}

#[test]
fn tensor_and_pipeline_parallelism_split_the_layers() {
    let whole = training("llama-3-70b").estimate();
    let mut training = training("llama-3-70b");
    training.split = split(8, 1);
    let ratio = whole.weights / training.estimate().weights;
    assert!((7.9..8.1).contains(&ratio), "{ratio}");
    training.split = split(1, 8);
    let ratio = whole.weights / training.estimate().weights;
    // A stage has the embedding, too.
    assert!((6.5..8.0).contains(&ratio), "{ratio}");
}

#[test]
fn adapters_have_the_only_gradients() {
    let mut training = training("llama-3.1-8b");
    let shape = *training.model.shape();
    training.trained = Trained::Adapters {
        rank: 8,
        numbers: shape.linear("q_proj") + shape.linear("v_proj"),
        frozen: 4.0,
    };
    let estimate = training.estimate();
    // PEFT counts 3,407,872 parameters for this rank and these modules.
    assert_eq!(estimate.gradients, 4.0 * 3_407_872.0);
    let base = 4.0 * (8_030_261_248.0 - 4096.0);
    assert_eq!(estimate.weights, base + 4.0 * 3_407_872.0);
}

#[test]
fn activations_grow_with_the_batch_and_shrink_when_they_are_recomputed() {
    let activations = |change: &dyn Fn(&mut Activations)| {
        let mut training = training("llama-3-70b");
        change(&mut training.activations);
        training.estimate().activations
    };
    let one = activations(&|_| {});
    // 80 layers of 2048 tokens: 54 GB, and 4 GB for the logits.
    assert!((50.0..60.0).contains(&(one / GIB)), "{}", one / GIB);
    assert_eq!(activations(&|a| a.sequences = 4), 4.0 * one);
    let half = activations(&|a| a.recomputed = Recomputed::Half);
    let all = activations(&|a| a.recomputed = Recomputed::All);
    assert!(
        all < one / 5.0 && half > all && half < one,
        "{all} {half} {one}"
    );
    assert!(activations(&|a| a.attention = Attention::Scores) > one);
}

#[test]
fn a_model_of_a_given_size_has_that_many_parameters() {
    let mut training = training("llama-3.2-1b");
    for billions in [0.001, 1.0, 13.0, 1000.0] {
        training.model = Model::find("/models/own", Some(billions)).unwrap();
        let states = training.estimate().states();
        let expected = 16.0 * billions * 1e9;
        assert!(
            (0.98..1.01).contains(&(states / expected)),
            "{billions}: {states}"
        );
    }
}
