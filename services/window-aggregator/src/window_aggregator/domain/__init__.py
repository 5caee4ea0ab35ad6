"""What is counted, in which windows, and when it is due: pure, no Kafka, no clock."""
