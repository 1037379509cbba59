// A sample for an OHIF viewer that is hosted elsewhere; the one at /viewer/ is configured by the server itself.
// Its origin must be in PACSLITE_CORS_ORIGINS.
window.config = {
  routerBasename: '/',
  showStudyList: true,
  extensions: [],
  modes: [],
  defaultDataSourceName: 'pacslite',
  dataSources: [
    {
      namespace: '@ohif/extension-default.dataSourcesModule.dicomweb',
      sourceName: 'pacslite',
      configuration: {
        friendlyName: 'pacslite',
        name: 'pacslite',
        qidoRoot: 'http://127.0.0.1:8080/dicom-web',
        wadoRoot: 'http://127.0.0.1:8080/dicom-web',
        wadoUriRoot: 'http://127.0.0.1:8080/dicom-web',
        imageRendering: 'wadors',
        thumbnailRendering: 'wadors',
        supportsFuzzyMatching: false,
        supportsWildcard: true,
        dicomUploadEnabled: true,
        bulkDataURI: { enabled: true },
      },
    },
  ],
};
