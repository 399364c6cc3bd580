"""The other side of a warehouse, none of it ours: a server that speaks S3 (moto), its client (boto3), and a reader of Parquet (DuckDB).

    serve PORT                       runs the server, in memory
    fetch ENDPOINT BUCKET FOLDER     copies the bucket into a folder
    read FOLDER                      what a query over the folder's files says

Each prints one line of JSON at the end, but `serve`, which does not end.
"""

import json
import pathlib
import sys


def serve(port):
    from moto.server import main

    main(["-H", "127.0.0.1", "-p", port])


def fetch(endpoint, bucket, folder):
    import boto3

    s3 = boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
    )
    names = []
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for item in page.get("Contents", []):
            path = pathlib.Path(folder) / item["Key"]
            path.parent.mkdir(parents=True, exist_ok=True)
            s3.download_file(bucket, item["Key"], str(path))
            names.append(item["Key"])
    return {"objects": len(names)}


def read(folder):
    import duckdb

    con = duckdb.connect()
    con.execute("set timezone = 'UTC'")
    # Day and event come from the folders' names.
    con.execute(
        f"create view events as select * from read_parquet('{folder}/**/*.parquet', "
        "hive_partitioning = true, hive_types_autocast = false, filename = true)"
    )
    columns = {name: kind for name, kind, *_ in con.execute("describe events").fetchall()}
    rows, ids, files, first_day, total = con.execute(
        "select count(*), count(distinct message_id), count(distinct filename), min(day), "
        "sum(cast(properties ->> '$.revenue' as decimal(18, 2))) from events"
    ).fetchone()
    wrong_day = con.execute("select count(*) from events where day <> strftime(received_at, '%Y-%m-%d')").fetchone()[0]
    by_name = con.execute("select event_name, count(*) from events group by 1 order by 1").fetchall()
    return {
        "columns": columns,
        "rows": rows,
        "ids": ids,
        "files": files,
        "first_day": first_day,
        "revenue": str(total),
        "wrong_day": wrong_day,
        "by_name": dict(by_name),
    }


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    said = {"serve": serve, "fetch": fetch, "read": read}[command](*arguments)
    print(json.dumps(said))
