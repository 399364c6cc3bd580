create table sample.half (id int);
create table sample.half (id int);
