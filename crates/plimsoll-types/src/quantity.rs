//! Quantities as people write them ("500m", "4Gi", "100Mbps").
