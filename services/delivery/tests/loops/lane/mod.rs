//! One lane, from a resolved range to the ledger.

mod answers;
mod bucket;
mod circuit;
mod commits;
mod consent;
mod crashes;
mod dead_letters;
mod ends;
mod forecast;
mod generations;
mod give_up;
mod golden;
mod holds;
mod layouts;
mod match_quality;
mod operators;
mod orders;
mod replays;
mod rig;
mod turns;
mod unknown;
mod unreadable;
mod verdicts;
mod warehouse;
