create table sample.note (
    id int primary key,
    text text not null,
    constraint note_text_key unique (text)
);
