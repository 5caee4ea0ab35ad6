-- The list of what is active reads the newest row by the same scalar subquery as every other view: a statement evaluates
-- it once, so that a join of this list with a fact cannot be of two activations.
CREATE OR REPLACE VIEW {database}.active_generation AS
SELECT mapping.1 AS type, mapping.2 AS generation
FROM
(
    SELECT arrayJoin(CAST((SELECT argMax(generations, version) FROM {database}.activation), 'Array(Tuple(String, UInt32))')) AS mapping
);
