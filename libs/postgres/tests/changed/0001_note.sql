create table sample.note (id int primary key);
