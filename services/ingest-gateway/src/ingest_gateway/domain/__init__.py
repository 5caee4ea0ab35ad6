"""What the gateway knows of telecom records: fields, numbers, identity, profiles. No Kafka, HTTP, SQL or clock."""
