//! Several workers on the same people.

use std::sync::Arc;

use tracklayer_identity::evidence::Evidence;
use tracklayer_identity::policy::Policy;

use crate::world::{Values, World, item_of, random_event};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn eight_workers_on_overlapping_identifiers_agree_with_the_whole_set() {
    for seed in 0..3 {
        let world = Arc::new(World::new(Policy::default()).await);
        let values = Values { people: 12, contacts: 8, devices: 5 };
        let mut random = fastrand::Rng::with_seed(seed);
        let batches: Vec<Vec<_>> = (0..64)
            .map(|_| (0..random.usize(1..12)).map(|_| random_event(&mut random, values)).collect())
            .collect();
        let mut workers = tokio::task::JoinSet::new();
        for worker in 0..8 {
            let world = Arc::clone(&world);
            // Every batch is worked on by two workers.
            let mine: Vec<_> = (0..batches.len())
                .filter(|n| n % 8 == worker || (n + 3) % 8 == worker)
                .map(|n| batches[n].clone())
                .collect();
            workers.spawn(async move {
                for batch in mine {
                    world.resolve(&batch.into_iter().map(item_of).collect::<Vec<_>>()).await;
                }
            });
        }
        while let Some(finished) = workers.join_next().await {
            finished.expect("no worker meets an error");
        }
        let events: Vec<_> = batches.into_iter().flatten().collect();
        world.assert_agrees(&events, Evidence::default(), &format!("seed {seed}")).await;
    }
}
