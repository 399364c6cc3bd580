//! One event that goes ahead of the others, where it is not known yet whether the platform works again.

use std::collections::VecDeque;

/// Leaves of a wave the first event of its first request. The others go back to where they came from, in their order.
pub fn one_ahead(wave: Vec<Vec<usize>>, queue: &mut VecDeque<Vec<usize>>) -> Vec<Vec<usize>> {
    let mut requests = wave.into_iter();
    let Some(mut first) = requests.next() else { return Vec::new() };
    let behind = first.split_off(1.min(first.len()));
    let later: Vec<Vec<usize>> = std::iter::once(behind).chain(requests).collect();
    for members in later.into_iter().rev().filter(|members| !members.is_empty()) {
        queue.push_front(members);
    }
    vec![first]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_event_goes_alone_and_the_others_follow_in_their_order() {
        let mut queue = VecDeque::from([vec![7, 8]]);
        let wave = one_ahead(vec![vec![1, 2, 3], vec![4], vec![5, 6]], &mut queue);
        assert_eq!(wave, [vec![1]]);
        assert_eq!(queue, [vec![2, 3], vec![4], vec![5, 6], vec![7, 8]]);
        assert_eq!(one_ahead(vec![vec![9]], &mut queue), [vec![9]]);
        assert_eq!(queue.len(), 4, "nothing was behind it");
        assert!(one_ahead(Vec::new(), &mut queue).is_empty());
    }
}
