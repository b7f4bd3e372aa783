//! iommu
