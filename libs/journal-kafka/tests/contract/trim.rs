//! Room is given back only for what every cursor has behind it.

use crate::stage::{Stage, WORKSPACE, append, beginning, events, read};

pub async fn what_a_cursor_has_not_behind_it_is_never_trimmed(stage: impl Stage) {
    let journal = stage.journal();
    for name in ["a", "b", "c", "d"] {
        append(&journal, 0, name, 3).await;
        append(&journal, 1, name, 3).await;
    }
    let (blocks, _) = read(&journal, beginning(0), 12).await;
    for behind in [0, 3, 4, 7, 12] {
        let place = beginning(0).after(&blocks, behind);
        journal.trim(&[(WORKSPACE, place)]).await.unwrap();
        let (left, _) = read(&stage.journal(), place, 12 - behind as usize).await;
        let left = events(&left).into_iter().filter(|(offset, _)| *offset >= behind).count();
        assert_eq!(left, 12 - behind as usize, "everything from {behind} on is there");
    }
    let (untouched, _) = read(&stage.journal(), beginning(1), 12).await;
    assert_eq!(events(&untouched).len(), 12, "another partition is none of its business");
}
